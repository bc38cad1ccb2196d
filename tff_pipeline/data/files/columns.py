"""Which column of a table is what."""

from collections.abc import Sequence
import csv
import dataclasses
import difflib

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data.files import faults


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roles:
  """The columns that are read.

  Attributes:
    client: Says whose row it is; `None` if no column does.
    label: Is predicted.
    features: Are predicted from, in the file's order or as they were named.
    categorical: Those of the features that hold categories.
    chosen: Whether the features were named, rather than all taken.
  """

  client: str | None
  label: str
  features: tuple[str, ...]
  categorical: frozenset[str]
  chosen: bool

  @property
  def all(self) -> tuple[str, ...]:
    """Every column that is read."""
    client = () if self.client is None else (self.client,)
    return (*client, self.label, *self.features)


def resolve(task: config.Task, available: Sequence[str]) -> Roles:
  """Returns the roles of a table's columns.

  Args:
    task: Names the columns.
    available: Columns of the table.

  Raises:
    UsageError: If a column is missing, is named twice or has two roles.
  """
  _check_unique('task.path', available)
  for flag, name in (
    ('task.client_column', task.client_column),
    ('task.label_column', task.label_column),
  ):
    if name is not None:
      _check_known(flag, name, available)
  if task.client_column == task.label_column:
    raise validate.error(
      'task.label_column',
      expected='another column than --task.client_column',
      found=task.label_column,
    )
  taken = (task.client_column, task.label_column)
  named = split_names(task.feature_columns)
  features = named or [name for name in available if name not in taken]
  _check_unique('task.feature_columns', features)
  for name in features:
    _check_known('task.feature_columns', name, available)
    if name in taken:
      raise validate.error(
        'task.feature_columns',
        expected='no column that says whose row it is, or the label',
        found=name,
      )
  if not features:
    raise validate.error(
      'task.feature_columns',
      expected='at least one column beside client and label',
      found='none in the file',
    )
  categorical = split_names(task.categorical_columns)
  for name in categorical:
    _check_known('task.categorical_columns', name, features)
  return Roles(
    client=task.client_column,
    label=task.label_column,
    features=tuple(features),
    categorical=frozenset(categorical),
    chosen=bool(named),
  )


def split_names(text: str | None) -> list[str]:
  """Returns the names in a comma-separated list; quotes protect commas.

  >>> split_names('age, "weight, kg"')
  ['age', 'weight, kg']
  """
  if not text:
    return []
  return [
    name.strip() for name in next(csv.reader([text], skipinitialspace=True))
  ]


def _check_known(flag: str, name: str, available: Sequence[str]) -> None:
  if name in available:
    return
  close = difflib.get_close_matches(name, available, n=1)
  shown = ', '.join(map(faults.shown, available[:20]))
  more = ', …' if len(available) > 20 else ''
  raise validate.error(
    flag,
    expected=f'one of {shown}{more}',
    found=name,
    remedy=f'Did you mean {faults.shown(close[0])}?' if close else '',
  )


def _check_unique(flag: str, names: Sequence[str]) -> None:
  for number, name in enumerate(names):
    if name in names[:number]:
      raise validate.error(
        flag, expected='columns with names of their own', found=f'{name} twice'
      )
