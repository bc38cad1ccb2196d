"""What a leaf is: a typed, bounded value of a record, which is also a flag.

A leaf is `None` while it is unset. A *choice* leaf (an enum) decides which
other leaves are used: setting a leaf that the choice does not use is an error,
and so is leaving out one that it needs. `config_flags` reads the same
declarations, so help texts, types and rules stand here once.
"""

from collections.abc import Mapping
import dataclasses
import enum
import math
import types
import typing
from typing import Any, ClassVar

from tff_pipeline import validate


@dataclasses.dataclass(frozen=True)
class LeafRule:
  """What a leaf means and which values it takes.

  Attributes:
    help: The flag's help text, with units.
    bounds: Keyword arguments for `validate.check_number`.
    used_by: A choice leaf of the same record, and the values that use this
      leaf; `None` if it is always used.
    required: Whether an unset leaf is an error where it is used.
  """

  help: str
  bounds: Mapping[str, float]
  used_by: tuple[str, tuple[str, ...]] | None
  required: bool


def leaf(
  help_text: str,
  *,
  default: Any = None,
  used_by: tuple[str, tuple[str, ...]] | None = None,
  required: bool = False,
  **bounds: float,
) -> Any:
  """Declares a leaf of a record.

  Args:
    help_text: The flag's help text, with units.
    default: Its value while it is not set; `None` leaves it unset.
    used_by: A choice leaf of the same record, and the values that use this one.
    required: Whether an unset leaf is an error where it is used.
    **bounds: Keyword arguments for `validate.check_number`.

  Returns:
    A dataclass field.
  """
  rule = LeafRule(help_text, bounds, used_by, required)
  return dataclasses.field(default=default, metadata={'rule': rule})


def leaf_type(field: dataclasses.Field) -> type:
  """Returns the type of a leaf's set values: int, float, str or a StrEnum."""
  if isinstance(field.type, types.UnionType):
    return next(t for t in typing.get_args(field.type) if t is not type(None))
  return field.type


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """Coerces, bounds and cross-checks the leaves of one record."""

  section: ClassVar[str] = ''

  def __post_init__(self) -> None:
    for field in declared(type(self)):
      value = getattr(self, field.name)
      if value is not None:
        checked = checked_leaf(self._flag(field.name), field, value)
        object.__setattr__(self, field.name, checked)
    for field in declared(type(self)):
      self._check_usage(field)

  @classmethod
  def _flag(cls, leaf: str) -> str:
    return f'{cls.section}.{leaf}' if cls.section else leaf

  def _check_usage(self, field: dataclasses.Field) -> None:
    rule = field.metadata['rule']
    value = getattr(self, field.name)
    flag = self._flag(field.name)
    used = True
    reason = ''
    if rule.used_by is not None:
      choice, users = rule.used_by
      chosen = getattr(self, choice)
      used = chosen in users
      reason = f'--{self._flag(choice)}={chosen}'
    if value is not None and not used:
      raise validate.error(
        flag,
        expected=f'no value, since {reason} does not use it',
        found=value,
        remedy=f'Leave it out, or set --{self._flag(rule.used_by[0])} to '
        + ' or '.join(rule.used_by[1]),
      )
    required = rule.required or field.default is not None
    if value is None and used and required:
      because = f' with {reason}' if reason else ''
      raise validate.error(
        flag,
        expected=f'a value{because} ({rule.help.rstrip(".")})',
        found='nothing',
      )


def declared(record_type: type) -> list[dataclasses.Field]:
  """Returns the fields of a record that are leaves."""
  return [f for f in dataclasses.fields(record_type) if 'rule' in f.metadata]


def checked_leaf(flag: str, field: dataclasses.Field, value: Any) -> Any:
  """Returns a set value as the leaf's type.

  Raises:
    UsageError: If its type, choice or bounds do not fit; other leaves are not
      looked at.
  """
  wanted = leaf_type(field)
  if issubclass(wanted, enum.StrEnum):
    validate.check_choice(flag, value, tuple(wanted))
    return wanted(value)
  if wanted is float and type(value) is int:
    value = float(value) if abs(value) < 2**1023 else math.inf
  if type(value) is not wanted:
    names = {int: 'a whole number', float: 'a number', str: 'text'}
    raise validate.error(flag, expected=names[wanted], found=value)
  if wanted in (int, float):
    validate.check_number(flag, value, **field.metadata['rule'].bounds)
  return value
