"""Rows in typed columns: what is read from a file, validated cell by cell."""

from collections.abc import Iterable
import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tff_pipeline import config
from tff_pipeline.data.files import columns
from tff_pipeline.data.files import faults

MISSING_WORDS = ('', '?', 'NA', 'N/A', 'NaN', 'nan', 'null', 'NULL', 'None')
# More than so many different ones are names or numbers, not categories.
MAX_CATEGORIES = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
  """A column of numbers.

  Attributes:
    name: Of the column.
    values: float64[n]; NaN where the cell is empty.
  """

  name: str
  values: np.ndarray

  @property
  def missing(self) -> np.ndarray:
    """Which cells are empty; bool[n]."""
    return np.isnan(self.values)

  def rows(self, kept: np.ndarray) -> 'Numbers':
    """Returns the column with some of its rows."""
    return Numbers(self.name, self.values[kept])


@dataclasses.dataclass(frozen=True, eq=False)
class Categories:
  """A column of names.

  Attributes:
    name: Of the column.
    codes: int64[n], places in `names`; -1 where the cell is empty.
    names: The different ones.
  """

  name: str
  codes: np.ndarray
  names: tuple[str, ...]

  @property
  def missing(self) -> np.ndarray:
    """Which cells are empty; bool[n]."""
    return self.codes < 0

  def rows(self, kept: np.ndarray) -> 'Categories':
    """Returns the column with some of its rows."""
    return Categories(self.name, self.codes[kept], self.names)


Column = Numbers | Categories


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """All rows of a file.

  Attributes:
    features: Columns to predict from.
    label: What is to be predicted.
    clients: Whose row it is; int64[n], from 0 without gaps in the order of the
      clients' names. `None` if there is no such column.
  """

  features: tuple[Column, ...]
  label: Column
  clients: np.ndarray | None

  def __len__(self) -> int:
    return len(self.label.missing)


def read(
  batches: Iterable[pa.RecordBatch],
  *,
  path: str | os.PathLike[str],
  first_row: int,
  roles: columns.Roles,
  task: config.Task,
) -> Table:
  """Returns the table of a file's batches.

  Args:
    batches: Record batches with the columns of `roles`.
    path: Their file, for errors.
    first_row: The number by which people call the first row.
    roles: What the columns are.
    task: Gives `target` and `missing`.

  Raises:
    UsageError: If a cell is not what its column holds, or is empty although it
      must not be; with row and column.
  """
  text = set(roles.categorical)
  text.update(() if roles.client is None else (roles.client,))
  if task.target is not config.Target.NUMBERS:
    text.add(roles.label)
  builders = {
    name: (_CategoriesBuilder if name in text else _NumbersBuilder)(
      name, path=path, limit=None if name == roles.client else MAX_CATEGORIES
    )
    for name in roles.all
  }
  row = first_row
  for batch in batches:
    for name, builder in builders.items():
      builder.add(batch.column(name), first_row=row)
    row += batch.num_rows
  built = {name: builder.build() for name, builder in builders.items()}
  kept = _complete_rows(
    built, path=path, first_row=first_row, roles=roles, missing=task.missing
  )
  if not kept.any():
    raise faults.cell(
      path,
      row=first_row,
      column=roles.label,
      expected='at least one complete row',
      found='none',
    )
  if not kept.all():
    built = {name: column.rows(kept) for name, column in built.items()}
  return Table(
    features=tuple(built[name] for name in roles.features),
    label=built[roles.label],
    clients=None if roles.client is None else numbered(built[roles.client]),
  )


def numbered(clients: Categories) -> np.ndarray:
  """Returns client numbers without gaps, in the order of the names."""
  places = np.empty(len(clients.names), np.int64)
  places[np.argsort(np.array(clients.names, object), kind='stable')] = (
    np.arange(len(clients.names))
  )
  return np.unique(places[clients.codes], return_inverse=True)[1]


def _complete_rows(
  built: dict[str, Column],
  *,
  path: str | os.PathLike[str],
  first_row: int,
  roles: columns.Roles,
  missing: config.Missing | None,
) -> np.ndarray:
  """Returns which rows are used; bool[n]."""
  kept = np.ones(len(next(iter(built.values())).missing), bool)
  if missing is config.Missing.DROP:
    for column in built.values():
      kept &= ~column.missing
    return kept
  needed = {
    name: column
    for name, column in built.items()
    if missing is not config.Missing.FILL or name not in roles.features
  }
  first = {
    name: int(column.missing.argmax())
    for name, column in needed.items()
    if column.missing.any()
  }
  if first:
    name = min(first, key=first.get)
    raise faults.cell(
      path,
      row=first_row + first[name],
      column=name,
      expected='a value',
      found='an empty cell',
      remedy='--task.missing=drop leaves such rows out'
      + (', =fill fills them in' if name in roles.features else ''),
    )
  return kept


class _NumbersBuilder:
  """Collects a column of numbers batch by batch."""

  def __init__(
    self, name: str, *, path: str | os.PathLike[str], limit: int | None
  ):
    del limit
    self._name = name
    self._path = path
    self._parts = []

  def add(self, cells: pa.Array, *, first_row: int) -> None:
    if pa.types.is_dictionary(cells.type):
      cells = cells.dictionary_decode()
    if _is_text(cells.type):
      cells = _without_missing_words(cells)
    elif not (
      pa.types.is_integer(cells.type)
      or pa.types.is_floating(cells.type)
      or pa.types.is_boolean(cells.type)
      or pa.types.is_decimal(cells.type)
    ):
      raise faults.cell(
        self._path,
        row=first_row,
        column=self._name,
        expected='a number',
        found=f'a {cells.type}',
        remedy='Choose other --task.feature_columns',
      )
    values = self._as_numbers(cells, first_row)
    infinite = np.isinf(values)
    if infinite.any():
      raise self._fault(first_row + int(infinite.argmax()), 'infinity')
    self._parts.append(values)

  def _as_numbers(self, cells: pa.Array, first_row: int) -> np.ndarray:
    cast = _cast(cells)
    if cast is None:
      low, high = 0, len(cells)
      while high - low > 1:  # The first bad cell is in cells[low:high].
        middle = (low + high) // 2
        bad = _cast(cells.slice(low, middle - low)) is None
        low, high = (low, middle) if bad else (middle, high)
      raise self._fault(first_row + low, faults.kind(cells[low].as_py()))
    return cast.fill_null(np.nan).to_numpy(zero_copy_only=False)

  def _fault(self, row: int, found: str) -> Exception:
    return faults.cell(
      self._path,
      row=row,
      column=self._name,
      expected='a number',
      found=found,
      remedy='Mend the row, or leave the column out of --task.feature_columns; '
      'text goes into --task.categorical_columns',
    )

  def build(self) -> Numbers:
    return Numbers(self._name, _joined(self._parts, np.float64))


class _CategoriesBuilder:
  """Collects a column of names batch by batch."""

  def __init__(
    self, name: str, *, path: str | os.PathLike[str], limit: int | None
  ):
    self._name = name
    self._path = path
    self._limit = limit
    self._codes: dict[str, int] = {}
    self._parts = []

  def add(self, cells: pa.Array, *, first_row: int) -> None:
    if pa.types.is_dictionary(cells.type):
      cells = cells.dictionary_decode()
    if pa.types.is_nested(cells.type):
      raise faults.cell(
        self._path,
        row=first_row,
        column=self._name,
        expected='one value in a cell',
        found=f'a {cells.type}',
      )
    text = cells if _is_text(cells.type) else cells.cast(pa.string())
    encoded = _without_missing_words(text).dictionary_encode()
    codes = np.array(
      [
        self._codes.setdefault(name, len(self._codes))
        for name in encoded.dictionary.to_pylist()
      ]
      + [-1],
      np.int64,
    )
    places = encoded.indices.fill_null(len(codes) - 1)
    if self._limit is not None and len(self._codes) > self._limit:
      raise faults.cell(
        self._path,
        row=first_row,
        column=self._name,
        expected=f'at most {self._limit} different values',
        found=f'{len(self._codes)} by the rows after it',
        remedy='Numbers to be predicted need --task.target=numbers; other '
        'columns of numbers must not be in --task.categorical_columns',
      )
    self._parts.append(codes[places.to_numpy(zero_copy_only=False)])

  def build(self) -> Categories:
    return Categories(
      self._name, _joined(self._parts, np.int64), tuple(self._codes)
    )


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
  return np.concatenate(parts) if parts else np.empty(0, dtype)


def _is_text(kind: pa.DataType) -> bool:
  return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _without_missing_words(cells: pa.Array) -> pa.Array:
  """Returns text without space around it; null where a cell is empty."""
  trimmed = pc.utf8_trim_whitespace(cells)
  words = pa.array(MISSING_WORDS, trimmed.type)
  return pc.if_else(
    pc.is_in(trimmed, value_set=words), pa.scalar(None, trimmed.type), trimmed
  )


def _cast(cells: pa.Array) -> pa.Array | None:
  """Returns float64 numbers; `None` if a cell is none."""
  if pa.types.is_boolean(cells.type):
    cells = cells.cast(pa.uint8())
  try:
    # Unsafe: whole numbers above 2^53 may be rounded.
    return pc.cast(cells, pa.float64(), safe=False)
  except pa.ArrowInvalid:
    return None
