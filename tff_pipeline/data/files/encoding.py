"""Columns -> features: learnt on the training rows alone.

A number becomes (value - mean) / deviation, and, where training rows have empty
cells, a second feature that is 1 for them; an empty cell counts as the mean. A
category becomes one 0/1 feature for each category that the training rows have;
an empty cell, or a category that they do not have, becomes zeros.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline.data.files import table


@dataclasses.dataclass(frozen=True)
class NumberEncoding:
  """How a column of numbers is encoded.

  Attributes:
    column: Its name.
    mean: Subtracted.
    stddev: Divided by; positive.
    fill: What an empty cell is taken for: the mean of the training rows.
    marks_missing: Whether a second feature says that the cell is empty.
  """

  column: str
  mean: float
  stddev: float
  fill: float
  marks_missing: bool

  @property
  def width(self) -> int:
    """Number of features."""
    return 1 + self.marks_missing

  def write(self, column: table.Numbers, out: np.ndarray) -> None:
    """Writes the features into float32[n, width]."""
    known = np.where(column.missing, self.fill, column.values)
    out[:, 0] = (known - self.mean) / self.stddev
    if self.marks_missing:
      out[:, 1] = column.missing


@dataclasses.dataclass(frozen=True)
class CategoryEncoding:
  """How a column of categories is encoded.

  Attributes:
    column: Its name.
    categories: Those of the training rows, in the order of the features.
  """

  column: str
  categories: tuple[str, ...]

  @property
  def width(self) -> int:
    """Number of features."""
    return len(self.categories)

  def write(self, column: table.Categories, out: np.ndarray) -> None:
    """Writes the features into float32[n, width]."""
    places = {name: place for place, name in enumerate(self.categories)}
    # The last one, which empty cells point at, too, is for unknown names.
    feature = np.array([places.get(name, -1) for name in column.names] + [-1])
    chosen = feature[column.codes]
    out[:] = 0.0
    rows = np.flatnonzero(chosen >= 0)
    out[rows, chosen[rows]] = 1.0


Encoding = NumberEncoding | CategoryEncoding


def learn(
  columns: Sequence[table.Column],
  train: np.ndarray,
  *,
  scaling: config.Scaling | None,
) -> tuple[Encoding, ...]:
  """Returns the encoding of each column, from its training rows.

  Args:
    columns: The columns.
    train: Row numbers of the training rows; the others are not looked at.
    scaling: Unset means standardise.
  """
  return tuple(_learn_one(c.rows(train), scaling) for c in columns)


def _learn_one(
  column: table.Column, scaling: config.Scaling | None
) -> Encoding:
  if isinstance(column, table.Categories):
    present = np.unique(column.codes[column.codes >= 0])
    names = sorted(column.names[code] for code in present)
    return CategoryEncoding(column.name, tuple(names))
  known = column.values[~column.missing]
  mean, stddev = 0.0, 1.0
  if len(known):
    mean = float(known.mean())
    # The deviation of a constant column is its rounding error, not its scale.
    spread = float(known.std())
    stddev = (
      spread if spread > 1e-12 * max(1e-300, np.abs(known).max()) else 1.0
    )
  marks = bool(column.missing.any())
  if scaling is config.Scaling.NONE:
    return NumberEncoding(column.name, 0.0, 1.0, mean, marks)
  return NumberEncoding(column.name, mean, stddev, mean, marks)


def apply(
  encodings: Sequence[Encoding],
  columns: Sequence[table.Column],
  rows: np.ndarray,
) -> np.ndarray:
  """Returns the features of some rows; float32[len(rows), width].

  Args:
    encodings: One for each column.
    columns: The columns.
    rows: Row numbers.
  """
  widths = [one.width for one in encodings]
  features = np.empty((len(rows), sum(widths)), np.float32)
  start = 0
  for one, column, width in zip(encodings, columns, widths, strict=True):
    one.write(column.rows(rows), features[:, start : start + width])
    start += width
  return features


def feature_names(plain: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns the names of the features, from what `to_plain` returned.

  >>> feature_names([{'column': 'city', 'categories': ['Oslo', 'Rome']}])
  ['city = Oslo', 'city = Rome']
  """
  names = []
  for one in plain:
    if 'categories' in one:
      names += [f'{one["column"]} = {name}' for name in one['categories']]
    else:
      names.append(one['column'])
      names += [f'{one["column"]} empty'] if one['marks_missing'] else []
  return names


def to_plain(encodings: Sequence[Encoding]) -> list[dict[str, Any]]:
  """Returns the encodings as plain values, ready for JSON."""
  return [dataclasses.asdict(one) for one in encodings]
