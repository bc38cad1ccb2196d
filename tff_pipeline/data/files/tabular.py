"""A table -> a data set: split, labels, encoded features, clients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data.files import encoding
from tff_pipeline.data.files import splitting
from tff_pipeline.data.files import table

MEANS = (
  'means and standard deviations of numeric columns, over the training rows'
)
CATEGORIES = 'which categories occur in the training rows'
CLASSES = 'which classes occur in the data'


def build(
  rows: table.Table, *, task: config.Task, chosen: bool
) -> data_set.DataSet:
  """Returns the data set of a table.

  Args:
    rows: The table.
    task: Gives split, scaling and target.
    chosen: Whether the user named the features; if not, columns that stand for
      the client are refused.

  Raises:
    UsageError: If the rows cannot be split or learned from.
  """
  if not chosen and rows.clients is not None:
    for column in rows.features:
      _check_no_alias(column, rows.clients)
  test = splitting.held_out(rows.clients, rows=len(rows), task=task)
  train_rows = np.flatnonzero(~test)
  features = encoding.learn(rows.features, train_rows, scaling=task.scaling)
  plain = encoding.to_plain(features)
  target = Target(rows.label, train_rows, task)

  def examples(numbers: np.ndarray) -> client_data.Examples:
    return client_data.Examples(
      encoding.apply(features, rows.features, numbers), target.values(numbers)
    )

  return assemble(
    examples,
    rows.clients,
    test,
    num_classes=target.num_outputs,
    objective=target.objective,
    uncovered=tuple(
      dict.fromkeys(_uncovered(rows.features, task) + target.uncovered)
    ),
    class_names=target.class_names,
    feature_names=tuple(encoding.feature_names(plain)),
    encoding={'features': plain, **target.to_plain()},
  )


def assemble(
  examples: Any,
  owners: np.ndarray | None,
  test: np.ndarray,
  **described: Any,
) -> data_set.DataSet:
  """Returns the data set of numbered rows.

  Args:
    examples: Row numbers -> `Examples`.
    owners: Whose row it is; int64[n]. `None` if the data has no clients.
    test: Which rows are held out; bool[n].
    **described: The other attributes of the data set.
  """
  train_rows, test_rows = np.flatnonzero(~test), np.flatnonzero(test)
  if owners is None:
    return data_set.DataSet(
      train=examples(train_rows), test=examples(test_rows), **described
    )
  within = bool(np.isin(owners[test_rows], owners[train_rows]).all())
  # The clients of by_client's test rows are not among those that train.
  numbers = np.unique(owners[train_rows])
  train = _by_client(examples, train_rows, owners, numbers)
  if not within:
    return data_set.DataSet(train=train, test=examples(test_rows), **described)
  client_test = _by_client(examples, test_rows, owners, numbers)
  return data_set.DataSet(
    train=train,
    test=client_test.examples,
    client_test=client_test,
    **described,
  )


def _by_client(
  examples: Any, rows: np.ndarray, owners: np.ndarray, numbers: np.ndarray
) -> client_data.ClientData:
  """Returns rows client after client, in the order of `numbers`."""
  rows = rows[np.argsort(owners[rows], kind='stable')]
  ends = np.searchsorted(owners[rows], numbers, side='right')
  offsets = np.concatenate([[0], ends]).astype(np.int64)
  return client_data.ClientData(examples(rows), offsets)


def classes(
  names: Sequence[str],
) -> tuple[tuple[str, ...], np.ndarray]:
  """Returns the classes in order, and the place of each name among them.

  Names that are numbers are in the order of their values, and different
  spellings of one number ("1", "1.0") are one class.

  Args:
    names: Different names, in any order.
  """
  try:
    values = np.array([float(name) for name in names])
  except ValueError:
    values = None
  if values is not None and np.all(np.isfinite(values)):
    ordered, places = np.unique(values, return_inverse=True)
    shown = [f'{int(v)}' if v == int(v) else repr(float(v)) for v in ordered]
    return tuple(shown), places
  ordered, places = np.unique(np.array(names, str), return_inverse=True)
  return tuple(map(str, ordered)), places


class Target:
  """What is predicted: classes, or numbers, scaled as features are.

  Attributes:
    num_outputs: Of the model.
    objective: Name of loss and metrics.
    class_names: In the order of the outputs; empty for numbers.
    uncovered: What was learnt from the data without noise.
  """

  def __init__(self, label: table.Column, train: np.ndarray, task: config.Task):
    self._label = label
    self._scale = None
    scaled = task.scaling is not config.Scaling.NONE
    self.class_names: tuple[str, ...] = ()
    if isinstance(label, table.Numbers):
      (self._scale,) = encoding.learn([label], train, scaling=task.scaling)
      self.num_outputs, self.objective = 1, 'regression'
      self.uncovered = (MEANS,) if scaled else ()
      return
    present, codes = np.unique(label.codes, return_inverse=True)
    names = [label.names[code] for code in present]
    self.class_names, places = classes(names)
    self._classes = places[codes].astype(np.int32)
    self.num_outputs, self.objective = len(self.class_names), 'classification'
    self.uncovered = (CLASSES,)
    if self.num_outputs < 2:
      raise validate.error(
        'task.label_column',
        expected='a column with at least two classes',
        found='one class',
      )

  def values(self, rows: np.ndarray) -> np.ndarray:
    """Returns int32[n] classes or float32[n, 1] numbers."""
    if self._scale is None:
      return self._classes[rows]
    return encoding.apply([self._scale], [self._label], rows)

  def to_plain(self) -> dict[str, Any]:
    """Returns classes or scale as plain values, ready for JSON."""
    if self._scale is None:
      return {'classes': list(self.class_names)}
    return {'target': encoding.to_plain([self._scale])[0]}


def _uncovered(
  columns: Sequence[table.Column], task: config.Task
) -> tuple[str, ...]:
  numeric = any(isinstance(c, table.Numbers) for c in columns)
  scaled = task.scaling is not config.Scaling.NONE
  filled = task.missing is config.Missing.FILL
  found = {
    MEANS: numeric and (scaled or filled),
    CATEGORIES: any(isinstance(c, table.Categories) for c in columns),
  }
  return tuple(clause for clause, applies in found.items() if applies)


def _check_no_alias(column: table.Column, clients: np.ndarray) -> None:
  """Refuses a column that names the client in other words."""
  number = int(clients.max()) + 1
  if number < 2 or len(clients) < 2 * number:
    return
  if isinstance(column, table.Categories):
    values = column.codes
  elif np.array_equal(column.values, np.floor(column.values)):
    values = np.unique(column.values, return_inverse=True)[1]
  else:
    return
  different = len(np.unique(values))
  pairs = len(np.unique(clients * np.int64(values.max() + 2) + values))
  if different == number == pairs:
    raise validate.error(
      'task.feature_columns',
      expected='features that do not stand for the client',
      found=f'{column.name}, of which every client has a value of its own',
      remedy='Name the features that are meant',
    )
