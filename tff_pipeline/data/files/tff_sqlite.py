"""SQLite files as TFF's data sets have them; larger than memory is welcome.

See `data.sqlite_stream` for the format. Splits are `train` and `test`. The
clients of `train` are numbered in the order of their ids, as TFF does, and stay
in the file; the test examples are loaded.
"""

import pathlib
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import sqlite_stream
from tff_pipeline.data import streamed
from tff_pipeline.data.files import columns
from tff_pipeline.data.files import delimited

_TRAIN, _TEST = 'train', 'test'
_DEFAULT_TEST_EXAMPLES = 10_000
# As in other data sets: the held-out rows do not depend on the seed.
_TEST_SEED = 0


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Raises `UsageError` about the file's tables or index."""
  del data_dir
  sqlite_stream.Database(delimited.existing_file(task))


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns clients that stay in the file, and test examples in memory.

  x is float32[n, features], the chosen features end to end; y is int32[n].

  Raises:
    UsageError: If the file is not in the format, or an example has other
      features than the first one.
  """
  del data_dir
  database = sqlite_stream.Database(delimited.existing_file(task))
  train = database.split(
    _TRAIN, clients=task.max_clients, examples=task.max_client_examples
  )
  parser = _Parser(task, _first_example(database, train))

  def read(chosen: np.ndarray) -> client_data.Examples:
    return parser.examples(database.read(train, chosen), train, chosen)

  return data_set.DataSet(
    train=streamed.StreamedClients(
      read, client_sizes=train.sizes, prototype=parser.prototype
    ),
    test=_test_examples(database, parser, task),
    num_classes=task.classes,
  )


def _first_example(
  database: sqlite_stream.Database, split: sqlite_stream.Split
) -> bytes:
  owner = int((split.sizes > 0).argmax())
  found = database.read(split, np.array([owner]))
  if not found:
    raise validate.error(
      'task.path',
      expected=f'examples in the split {split.name}',
      found='clients without any',
    )
  return found[0]


def _test_examples(
  database: sqlite_stream.Database, parser: '_Parser', task: config.Task
) -> client_data.Examples:
  """Returns those of random test clients, until there are enough."""
  split = database.split(_TEST)
  most = task.test_examples or _DEFAULT_TEST_EXAMPLES
  order = np.random.default_rng(_TEST_SEED).permutation(len(split.ids))
  ends = np.cumsum(split.sizes[order])
  # Whole clients; one that alone is larger than what is wanted is cut.
  count = max(1, int(np.searchsorted(ends, most, side='right')))
  chosen = np.sort(order[:count])
  examples = parser.examples(database.read(split, chosen), split, chosen)
  return client_data.Examples(examples.x[:most], examples.y[:most])


class _Parser:
  """Serialized examples -> arrays.

  Attributes:
    prototype: No examples, of the right shapes and dtypes.
  """

  def __init__(self, task: config.Task, first: bytes):
    """Takes the features from the first example."""
    import tensorflow as tf  # Late: `prepare` must not pay for it.

    features = _features(tf, first, task)
    roles = columns.resolve(task, sorted(features))
    _check_label(roles.label, features)
    for name in roles.features:
      _check_feature(name, features)
    types = {'float_list': tf.float32, 'int64_list': tf.int64}
    self._task = task
    self._label = roles.label
    self._features = roles.features
    self._spec = {
      name: tf.io.FixedLenFeature([features[name][1]], types[features[name][0]])
      for name in (roles.label, *roles.features)
    }
    width = sum(features[name][1] for name in roles.features)
    self.prototype = client_data.Examples(
      np.empty((0, width), np.float32), np.empty(0, np.int32)
    )

  def examples(
    self,
    serialized: list[bytes],
    split: sqlite_stream.Split,
    chosen: np.ndarray,
  ) -> client_data.Examples:
    """Returns the examples of some clients of a split, end to end."""
    if not serialized:
      return self.prototype
    found = self._parse(serialized)
    if found is None:
      row = next(
        i for i, one in enumerate(serialized) if self._parse([one]) is None
      )
      raise self._fault(row, split, chosen, 'other features')
    x = np.concatenate(
      [found[name].astype(np.float32) for name in self._features], axis=1
    )
    y = found[self._label][:, 0]
    for bad, what in (
      (~np.isfinite(x).all(axis=1), 'infinity or NaN'),
      ((y < 0) | (y >= self._task.classes), 'another label'),
    ):
      if bad.any():
        raise self._fault(int(bad.argmax()), split, chosen, what)
    return client_data.Examples(x, y.astype(np.int32))

  def _parse(self, serialized: list[bytes]) -> dict[str, np.ndarray] | None:
    """Returns the columns; `None` if an example has other ones."""
    import tensorflow as tf

    try:
      with tf.device('CPU'):
        found = tf.io.parse_example(tf.constant(serialized), self._spec)
    except (tf.errors.OpError, TypeError, ValueError):
      return None
    return {name: column.numpy() for name, column in found.items()}

  def _fault(
    self,
    row: int,
    split: sqlite_stream.Split,
    chosen: np.ndarray,
    found: str,
  ) -> validate.UsageError:
    ends = np.cumsum(split.sizes[chosen])
    place = int(np.searchsorted(ends, row, side='right'))
    number = row - int(ends[place] - split.sizes[chosen[place]]) + 1
    return validate.error(
      'task.path',
      expected='finite features as in the first example, and a label from 0 '
      f'to {self._task.classes - 1}, in {self._task.path}, split {split.name}, '
      f'client {chosen[place]} (by id, from 0), example {number}',
      found=found,
    )


def _features(
  tf: Any, serialized: bytes, task: config.Task
) -> dict[str, tuple[str | None, int]]:
  """Returns name -> (kind, number of values) of an example's features."""
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except Exception as e:  # protobuf's DecodeError is private to its backend.
    raise validate.error(
      'task.path',
      expected=f'a tf.train.Example in each row of {task.path}',
      found='something else',
    ) from e
  kinds = {name: one.WhichOneof('kind') for name, one in features.items()}
  return {
    name: (
      kind,
      0 if kind is None else len(getattr(features[name], kind).value),
    )
    for name, kind in kinds.items()
  }


def _check_label(
  name: str, features: dict[str, tuple[str | None, int]]
) -> None:
  if features[name] != ('int64_list', 1):
    kind, count = features[name]
    raise validate.error(
      'task.label_column',
      expected='a feature of one whole number',
      found=f'{name}, a {kind} of {count}',
    )


def _check_feature(
  name: str, features: dict[str, tuple[str | None, int]]
) -> None:
  kind, count = features[name]
  if kind not in ('float_list', 'int64_list') or not count:
    raise validate.error(
      'task.feature_columns',
      expected='features of numbers',
      found=f'{name}, a {kind} of {count}',
      remedy='Name those that are meant; text needs a task of its own',
    )
