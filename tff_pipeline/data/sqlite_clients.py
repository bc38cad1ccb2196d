"""Clients from the SQLite files of `tff.simulation.datasets`.

Such a file has a table `examples` (split_name, client_id,
serialized_example_proto) and a table `client_metadata` (client_id, split_name,
num_examples). TFF opens a pipeline per client and example; here a whole split
is parsed in chunks into compact arrays, with the same examples in the same
order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import pathlib
import sqlite3
import typing
from typing import Any

import numpy as np

from tff_pipeline.data import client_data
from tff_pipeline.data import raw_files

if typing.TYPE_CHECKING:
  pass

_CHUNK = 20_000  # Serialized examples parsed at a time.
_COLUMNS = {
  'examples': {'split_name', 'client_id', 'serialized_example_proto'},
  'client_metadata': {'split_name', 'client_id'},
}

Columns = Mapping[str, np.ndarray]
Encoded = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Format:
  """What an example of a file is, and what becomes of it.

  Attributes:
    features: Name -> dtype and shape of a `tf.train.Example`'s features.
    encode: Columns of many examples -> x, y, and how many rows each example
      became; `None` if one each.
  """

  features: Mapping[str, tuple[type, tuple[int, ...]]]
  encode: Callable[[Columns], Encoded]


def read(
  path: pathlib.Path,
  split: str,
  *,
  format: Format,
  max_clients: int | None = None,
  max_rows: int | None = None,
) -> tuple[list[str], client_data.ClientData]:
  """Returns the names of a split's clients, sorted, and their examples.

  Args:
    path: The file.
    split: Name of the split.
    format: How to read an example.
    max_clients: Read only the first clients, in the order of their names.
    max_rows: Stop after so many serialized examples, client after client.

  Raises:
    UsageError: If the file is damaged or not in this format.
  """
  with raw_files.complaints(path), _connect(path) as connection:
    _check_size(connection, path)
    _check_tables(connection)
    names = _client_names(connection, split, max_clients)
    if not names:
      raise ValueError(f'it has no clients in the split {split}')
    limited = max_clients is not None or max_rows is not None
    query = _each_client if limited else _whole_split
    rows = itertools.islice(query(connection, split, names), max_rows)
    data = _laid_out(rows, names, format)
  return names, data


@contextlib.contextmanager
def _connect(path: pathlib.Path) -> Iterator[sqlite3.Connection]:
  # `immutable`: the folder may be read-only, and nobody writes.
  uri = path.resolve().as_uri() + '?mode=ro&immutable=1'
  try:
    connection = sqlite3.connect(uri, uri=True)
    with contextlib.closing(connection):
      connection.execute('PRAGMA trusted_schema=OFF')
      yield connection
  except sqlite3.Error as e:
    raise ValueError(f'{e}, says SQLite') from e


def _check_size(connection: sqlite3.Connection, path: pathlib.Path) -> None:
  """Raises `ValueError` for a torn last page, which SQLite reads as zeros."""
  pages, size = (
    connection.execute(f'PRAGMA {name}').fetchone()[0]
    for name in ('page_count', 'page_size')
  )
  if path.stat().st_size < pages * size:
    raise ValueError(f'it ends before its {pages} pages of {size} bytes')


def _check_tables(connection: sqlite3.Connection) -> None:
  # A view could run anything that SQL can.
  found = connection.execute(
    "SELECT name FROM sqlite_master WHERE type='table'"
  )
  tables = {name for (name,) in found}
  for table, columns in _COLUMNS.items():
    if table not in tables:
      raise ValueError(f'it has no table {table}')
    info = connection.execute(f'PRAGMA table_info({table})')
    missing = columns - {name for _, name, *_ in info}
    if missing:
      raise ValueError(f'its table {table} has no column {min(missing)}')


def _client_names(
  connection: sqlite3.Connection, split: str, max_clients: int | None
) -> list[str]:
  found = connection.execute(
    'SELECT DISTINCT client_id FROM client_metadata WHERE split_name = ?',
    (split,),
  )
  names = [name for (name,) in found]
  if not all(isinstance(name, str) for name in names):
    raise ValueError('a client_id is no text')
  return sorted(names)[:max_clients]


def _whole_split(
  connection: sqlite3.Connection, split: str, names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
  """Yields (client, serialized example) in the order of the file."""
  del names
  yield from connection.execute(
    'SELECT client_id, serialized_example_proto FROM examples '
    'WHERE split_name = ? ORDER BY rowid',
    (split,),
  )


def _each_client(
  connection: sqlite3.Connection, split: str, names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
  """Yields the same, client after client, through the file's index."""
  for name in names:
    yield from connection.execute(
      'SELECT client_id, serialized_example_proto FROM examples '
      'WHERE client_id = ? AND split_name = ? ORDER BY rowid',
      (name, split),
    )


def _laid_out(
  rows: Iterator[tuple[str, bytes]], names: Sequence[str], format: Format
) -> client_data.ClientData:
  index = {name: number for number, name in enumerate(names)}
  xs, ys, owners = [], [], []
  while chunk := list(itertools.islice(rows, _CHUNK)):
    # As for TFF, who is not in the metadata is not there.
    chunk = [row for row in chunk if row[0] in index]
    if not chunk:
      continue
    x, y, counts = format.encode(_parse([row[1] for row in chunk], format))
    xs.append(x)
    ys.append(y)
    owner = np.array([index[name] for name, _ in chunk], np.int64)
    owners.append(owner if counts is None else np.repeat(owner, counts))
  if not xs:
    raise ValueError('its clients have no examples')
  owner = np.concatenate(owners)
  order = np.argsort(owner, kind='stable')
  sizes = np.bincount(owner, minlength=len(names))
  examples = client_data.Examples(
    np.concatenate(xs)[order], np.concatenate(ys)[order]
  )
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  return client_data.ClientData(examples, offsets)


def _parse(serialized: list[Any], format: Format) -> Columns:
  """Returns the columns of serialized `tf.train.Example`s."""
  import tensorflow as tf

  if not all(isinstance(row, bytes) for row in serialized):
    raise ValueError('a serialized_example_proto is no blob')
  spec = {
    name: tf.io.FixedLenFeature(shape, dtype)
    for name, (dtype, shape) in format.features.items()
  }
  try:
    with tf.device('CPU'):
      parsed = tf.io.parse_example(tf.constant(serialized), spec)
  except (tf.errors.OpError, UnicodeDecodeError) as e:
    # TensorFlow quotes the example, whose bytes it then may fail to decode.
    raise ValueError(f'an example in it is not as it should be: {e}') from e
  return {name: column.numpy() for name, column in parsed.items()}


def by_client(
  train: tuple[list[str], client_data.ClientData],
  test: tuple[list[str], client_data.ClientData],
) -> client_data.ClientData | None:
  """Returns the test data in the order of the training clients.

  A training client without test examples gets none. `None` if the test clients
  are other people than the training clients.
  """
  train_names, _ = train
  test_names, data = test
  position = {name: number for number, name in enumerate(test_names)}
  if not set(position) <= set(train_names):
    return None
  nothing = np.zeros(0, np.int64)
  rows = [
    np.arange(*data.offsets[position[name] :][:2])
    if name in position
    else nothing
    for name in train_names
  ]
  return client_data.from_assignment(data.examples, rows)
