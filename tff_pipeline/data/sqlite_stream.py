"""Serialized examples of some clients, straight from a SQLite file.

The files of `tff.simulation.datasets`: a table `client_metadata` (client_id,
split_name, num_examples) says who there is; a table `examples` (split_name,
client_id, serialized_example_proto) holds one `tf.train.Example` a row.
`sqlite_clients` reads such a file whole; here it may be larger than memory.
"""

import itertools
import pathlib
import sqlite3
import threading
from typing import Any

import numpy as np

from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import raw_files
from tff_pipeline.data import sqlite_clients
from tff_pipeline.data import streamed

_NEEDED = {
  'examples': {'split_name', 'client_id', 'serialized_example_proto'},
  'client_metadata': {'client_id', 'split_name', 'num_examples'},
}
_INDEX = 'CREATE INDEX by_client ON examples (client_id)'
_ROWS = (
  'SELECT serialized_example_proto FROM examples'
  ' WHERE client_id = ? AND split_name = ? ORDER BY rowid LIMIT ?'
)
_ALL = -1  # What LIMIT takes for no limit.


class Split:
  """Who is in a split, in the order of their ids.

  Attributes:
    name: Of the split.
    ids: The clients' ids. Never shown: an error says a client's place here.
    stored: Examples of each in the file; int64[clients].
    sizes: Examples of each that are used; int64[clients].
  """

  def __init__(
    self, name: str, rows: list[tuple[str, int]], *, limit: int | None
  ):
    self.name = name
    self.ids = [client for client, _ in rows]
    self.stored = np.array([count for _, count in rows], np.int64)
    self.sizes = (
      self.stored if limit is None else np.minimum(self.stored, limit)
    )


class Database:
  """A file, opened by each thread for itself, for reading only."""

  def __init__(self, path: pathlib.Path, *, flag: str):
    """Opens the file.

    Args:
      path: The file.
      flag: Which one said where it is, for errors.

    Raises:
      UsageError: If it is not in the format, or has no index by client,
        without which every cohort would read the whole file.
    """
    self._path = path
    self._flag = flag
    self._threads = threading.local()
    self._check_tables()
    self._check_index()

  @property
  def _connection(self) -> sqlite3.Connection:
    if not hasattr(self._threads, 'connection'):
      # `immutable`: the folder may be read-only, and nobody writes.
      uri = self._path.resolve().as_uri() + '?mode=ro&immutable=1'
      connection = sqlite3.connect(uri, uri=True)
      connection.execute('PRAGMA trusted_schema=OFF')
      self._threads.connection = connection
    return self._threads.connection

  def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
    """Returns what a query gives; raises `UsageError` about a damaged file."""
    try:
      return self._connection.execute(query, values).fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as e:
      raise self._error(
        'a whole SQLite file', f'another one in {self._path}'
      ) from e

  def _error(
    self, expected: str, found: Any, remedy: str = ''
  ) -> validate.UsageError:
    return validate.error(
      self._flag, expected=expected, found=found, remedy=remedy
    )

  def _check_tables(self) -> None:
    # A view could run anything that SQL can.
    tables = {
      name
      for (name,) in self._rows(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
      )
    }
    for table, needed in _NEEDED.items():
      rows = self._rows(f'PRAGMA table_info({table})')
      found = {row[1] for row in rows} if table in tables else set()
      if not needed <= found:
        raise self._error(
          f'a table {table} with the columns ' + ', '.join(sorted(needed)),
          ', '.join(sorted(found)) or f'no such table in {self._path}',
        )

  def _check_index(self) -> None:
    plan = self._rows('EXPLAIN QUERY PLAN ' + _ROWS, ('', '', _ALL))
    if not any('SEARCH' in step for *_, step in plan):
      raise self._error(
        'an index by client on the examples, without which every cohort reads '
        'the whole file',
        f'none in {self._path}',
        f'Run sqlite3 on it with: {_INDEX}',
      )

  def split(
    self, name: str, *, clients: int | None = None, examples: int | None = None
  ) -> Split:
    """Returns who is in a split.

    Args:
      name: Of the split.
      clients: How many to keep; unset means all.
      examples: Examples to keep of each, at most; unset means all.

    Raises:
      UsageError: If nobody is, or nobody has an example.
    """
    rows = self._rows(
      'SELECT client_id, num_examples FROM client_metadata'
      ' WHERE split_name = ? ORDER BY client_id LIMIT ?',
      (name, _ALL if clients is None else clients),
    )
    if not rows:
      raise self._error(f'clients in the split {name}', f'none in {self._path}')
    if not all(
      isinstance(i, str) and isinstance(n, int) and n >= 0 for i, n in rows
    ):
      raise self._error(
        'text as client_id and a whole number as num_examples',
        f'others in {self._path}',
      )
    # A user who is two clients takes part twice; the price is of once.
    if any(a == b for (a, _), (b, _) in itertools.pairwise(rows)):
      raise self._error(
        f'each client once in the split {name} of client_metadata',
        f'some more often in {self._path}',
      )
    if not any(count for _, count in rows):
      raise self._error(
        f'examples in the split {name}', f'none in {self._path}'
      )
    return Split(name, rows, limit=examples)

  def read(self, split: Split, chosen: np.ndarray) -> list[bytes]:
    """Returns the serialized examples of some clients, end to end.

    Raises:
      UsageError: If a client has fewer or more than the metadata say.
    """
    found = []
    for index in chosen:
      size, stored = int(split.sizes[index]), int(split.stored[index])
      # One more than there should be, to notice it.
      limit = size + (size == stored)
      rows = self._rows(_ROWS, (split.ids[index], split.name, limit))
      if len(rows) != size:
        raise self._error(
          f'{stored} examples of client {index} (by id, from 0) in the split '
          f'{split.name} of {self._path}, as client_metadata says',
          f'{len(rows)}' + (' or more' if len(rows) > size else ''),
        )
      found += [row[0] for row in rows]
    return found


def clients(
  path: pathlib.Path,
  split: str,
  *,
  format: sqlite_clients.Format,
  examples: int | None = None,
) -> streamed.StreamedClients:
  """Returns the clients of a split, whose examples stay in the file.

  Args:
    path: The file.
    split: Name of the split.
    format: How to read an example, which must become one row.
    examples: Examples to keep of each client, at most; unset means all.

  Raises:
    UsageError: If the file is damaged or not in this format; also later, when
      a cohort is read.
  """
  database = Database(path, flag='data_dir')
  who = database.split(split, examples=examples)

  def read(chosen: np.ndarray) -> client_data.Examples:
    serialized = database.read(who, chosen)
    if not serialized:  # Never so for the first ones, whose shape it is.
      return prototype
    with raw_files.complaints(path):
      x, y, _ = format.encode(sqlite_clients.parse(serialized, format))
    return client_data.Examples(x, y)

  first = read(np.flatnonzero(who.sizes)[:1])
  prototype = client_data.Examples(first.x[:0], first.y[:0])
  return streamed.StreamedClients(
    read, client_sizes=who.sizes, prototype=prototype
  )
