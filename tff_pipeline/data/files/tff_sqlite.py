"""SQLite files as TFF's data sets have them; larger than memory is welcome.

Table `client_metadata` (client_id, split_name, num_examples) says who there is;
table `examples` (split_name, client_id, serialized_example_proto) holds one
`tf.train.Example` a row. Splits are `train` and `test`. Clients of `train` are
numbered in the order of their ids, as TFF does, and stay in the file.
"""

import pathlib
import sqlite3
import threading
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import streamed
from tff_pipeline.data.files import columns
from tff_pipeline.data.files import delimited

_TRAIN, _TEST = 'train', 'test'
_NEEDED = {
  'examples': {'split_name', 'client_id', 'serialized_example_proto'},
  'client_metadata': {'client_id', 'split_name', 'num_examples'},
}
# Without an index every cohort would read the whole file.
_INDEX = 'CREATE INDEX by_client ON examples (client_id)'
_ROWS = (
  'SELECT serialized_example_proto FROM examples'
  ' WHERE client_id = ? AND split_name = ? ORDER BY rowid LIMIT ?'
)
_DEFAULT_TEST_EXAMPLES = 10_000
_ALL = -1  # What LIMIT takes for no limit.
# As in other data sets: the held-out rows do not depend on the seed.
_TEST_SEED = 0


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Raises `UsageError` about the file's tables, index or splits."""
  del data_dir
  _Database(task)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns clients that stay in the file, and test examples in memory.

  x is float32[n, features], the chosen features end to end; y is int32[n].

  Raises:
    UsageError: If the file is not in the format, or an example has other
      features than the first one.
  """
  del data_dir
  database = _Database(task)
  train = database.clients(
    _TRAIN, clients=task.max_clients, examples=task.max_client_examples
  )
  parser = _Parser(task, database.first_example(train.ids[0]))
  return data_set.DataSet(
    train=streamed.StreamedClients(
      lambda chosen: parser.examples(database.read(train, chosen), train, chosen),
      client_sizes=train.sizes,
      prototype=parser.prototype,
    ),
    test=_test_examples(database, parser, task),
    num_classes=task.classes,
  )


class _Split:
  """Who is in a split.

  Attributes:
    name: Of the split.
    ids: The clients' ids, in order.
    sizes: Examples of each; int64[clients].
    stored: Examples of each that the file has; int64[clients].
  """

  def __init__(self, name: str, rows: list[tuple], limit: int | None):
    self.name = name
    self.ids = [client for client, _ in rows]
    self.stored = np.array([count for _, count in rows], np.int64)
    self.sizes = (
      self.stored if limit is None else np.minimum(self.stored, limit)
    )


class _Database:
  """A file, opened for reading by each thread for itself."""

  def __init__(self, task: config.Task):
    self._path = delimited.existing_file(task)
    self._threads = threading.local()
    try:
      self._check()
    except sqlite3.DatabaseError as e:
      raise validate.error(
        'task.path', expected='a whole SQLite file', found=task.path
      ) from e

  @property
  def _connection(self) -> sqlite3.Connection:
    if not hasattr(self._threads, 'connection'):
      uri = self._path.resolve().as_uri() + '?mode=ro'
      self._threads.connection = sqlite3.connect(uri, uri=True)
    return self._threads.connection

  def _check(self) -> None:
    for table, needed in _NEEDED.items():
      found = {
        row[1] for row in self._connection.execute(f'PRAGMA table_info({table})')
      }
      if not needed <= found:
        raise validate.error(
          'task.path',
          expected=f'a table {table} with the columns '
          + ', '.join(sorted(needed)),
          found=', '.join(sorted(found)) or f'no such table in {self._path}',
        )
    plan = self._connection.execute(
      'EXPLAIN QUERY PLAN ' + _ROWS, ('', _TRAIN, _ALL)
    ).fetchall()
    if not any('SEARCH' in row[-1] for row in plan):
      raise validate.error(
        'task.path',
        expected='an index on the client_id of the examples, without which '
        'every cohort reads the whole file',
        found=f'none in {self._path}',
        remedy=f'Run sqlite3 on it with: {_INDEX}',
      )

  def clients(
    self, split: str, *, clients: int | None = None, examples: int | None = None
  ) -> _Split:
    """Returns who is in a split, in the order of the ids."""
    rows = self._connection.execute(
      'SELECT client_id, num_examples FROM client_metadata'
      ' WHERE split_name = ? ORDER BY client_id LIMIT ?',
      (split, _ALL if clients is None else clients),
    ).fetchall()
    if not rows:
      raise validate.error(
        'task.path',
        expected=f'clients in the split {split}',
        found=f'none in {self._path}',
      )
    return _Split(split, rows, examples)

  def first_example(self, client: str) -> bytes:
    """Returns the first example of a client."""
    rows = self._connection.execute(_ROWS, (client, _TRAIN, 1)).fetchall()
    if not rows:
      raise _wrong_size(self._path, 0, 'some', 0)
    return rows[0][0]

  def read(self, split: _Split, chosen: np.ndarray) -> list[bytes]:
    """Returns the examples of some clients, end to end."""
    found = []
    for index in chosen:
      rows = self._connection.execute(
        _ROWS, (split.ids[index], split.name, int(split.sizes[index]) + 1)
      ).fetchall()
      if split.sizes[index] == split.stored[index]:
        if len(rows) != split.sizes[index]:
          raise _wrong_size(
            self._path, index, split.sizes[index], f'{len(rows)} or more'
          )
      found += [row[0] for row in rows[: split.sizes[index]]]
    return found


def _wrong_size(
  path: pathlib.Path, index: int, expected: Any, found: Any
) -> validate.UsageError:
  return validate.error(
    'task.path',
    expected=f'{expected} examples of client {index} (by id, from 0) in '
    f'{path}, as client_metadata says',
    found=found,
  )


class _Parser:
  """Serialized examples -> arrays.

  Attributes:
    prototype: No examples, of the right shapes and dtypes.
  """

  def __init__(self, task: config.Task, first: bytes):
    import tensorflow as tf  # Late: `prepare` must not pay for it.

    self._task = task
    kinds = {
      name: feature.WhichOneof('kind')
      for name, feature in _features_of(tf, task, first).items()
    }
    roles = columns.resolve(task, sorted(kinds))
    lengths = {
      name: len(getattr(_features_of(tf, task, first)[name], kinds[name]).value)
      for name in (roles.label, *roles.features)
      if kinds[name] is not None
    }
    types = {'float_list': tf.float32, 'int64_list': tf.int64}
    for name in (roles.label, *roles.features):
      wanted = ['int64_list'] if name == roles.label else list(types)
      if kinds[name] not in wanted or (
        name == roles.label and lengths[name] != 1
      ):
        raise validate.error(
          'task.label_column' if name == roles.label else 'task.feature_columns',
          expected='one whole number'
          if name == roles.label
          else 'features of numbers',
          found=f'{name}, a {kinds[name] or "feature without values"}',
        )
    self._label = roles.label
    self._features = roles.features
    self._spec = {
      name: tf.io.FixedLenFeature([lengths[name]], types[kinds[name]])
      for name in (roles.label, *roles.features)
    }
    width = sum(lengths[name] for name in roles.features)
    self.prototype = client_data.Examples(
      np.empty((0, width), np.float32), np.empty(0, np.int32)
    )

  def examples(
    self, serialized: list[bytes], split: _Split, chosen: np.ndarray
  ) -> client_data.Examples:
    """Returns the examples of some clients of a split, end to end."""
    import tensorflow as tf

    if not serialized:
      return self.prototype
    try:
      found = tf.io.parse_example(tf.constant(serialized), self._spec)
    except tf.errors.InvalidArgumentError:
      # TensorFlow's message does not say whose; look for it.
      raise self._fault(
        self._first_unparsable(serialized), split, chosen, 'other features'
      ) from None
    x = np.concatenate(
      [found[name].numpy().astype(np.float32) for name in self._features],
      axis=1,
    )
    y = found[self._label].numpy()[:, 0]
    for bad, what in (
      (~np.isfinite(x).all(axis=1), 'infinity or NaN'),
      ((y < 0) | (y >= self._task.classes), 'another label'),
    ):
      if bad.any():
        raise self._fault(int(bad.argmax()), split, chosen, what)
    return client_data.Examples(x, y.astype(np.int32))

  def _first_unparsable(self, serialized: list[bytes]) -> int:
    import tensorflow as tf

    for number, one in enumerate(serialized):
      try:
        tf.io.parse_example(tf.constant([one]), self._spec)
      except tf.errors.InvalidArgumentError:
        return number
    return 0

  def _fault(
    self, row: int, split: _Split, chosen: np.ndarray, found: str
  ) -> validate.UsageError:
    ends = np.cumsum(split.sizes[chosen])
    place = int(np.searchsorted(ends, row, side='right'))
    first = ends[place] - split.sizes[chosen[place]]
    return validate.error(
      'task.path',
      expected='finite features as in the first example, and a label from 0 '
      f'to {self._task.classes - 1}, in {self._task.path}, split {split.name}, '
      f'client {chosen[place]} (by id, from 0), example {row - first + 1}',
      found=found,
    )


def _features_of(tf: Any, task: config.Task, serialized: bytes) -> Any:
  try:
    return tf.train.Example.FromString(serialized).features.feature
  except Exception as e:  # protobuf's DecodeError is private to its backend.
    raise validate.error(
      'task.path',
      expected=f'a tf.train.Example in each row of {task.path}',
      found='something else',
    ) from e


def _test_examples(
  database: _Database, parser: _Parser, task: config.Task
) -> client_data.Examples:
  """Returns those of random test clients, until there are enough."""
  split = database.clients(_TEST)
  most = task.test_examples or _DEFAULT_TEST_EXAMPLES
  order = np.random.default_rng(_TEST_SEED).permutation(len(split.ids))
  ends = np.cumsum(split.sizes[order])
  # Whole clients; one larger than all that is wanted is cut.
  chosen = np.sort(order[: max(1, int(np.searchsorted(ends, most, 'right')))])
  examples = parser.examples(database.read(split, chosen), split, chosen)
  return client_data.Examples(examples.x[:most], examples.y[:most])
