"""Experiments as plain nested values, and back."""

from collections.abc import Mapping
import dataclasses
import enum
from typing import Any

from tff_pipeline import validate
from tff_pipeline.config import records


def with_solution(
  experiment: records.Experiment, leaf: str, value: float | int
) -> records.Experiment:
  """Returns the config with a solved leaf in the place of its target.

  Args:
    experiment: A config with `privacy.target_epsilon`.
    leaf: Dotted name of the leaf that was solved.
    value: Its value.
  """
  values = to_dict(experiment)
  values['privacy'].pop('target_epsilon')
  values['privacy'].pop('solve_for', None)
  section, _, name = leaf.rpartition('.')
  (values[section] if section else values)[name] = value
  return from_dict(values)


def to_dict(experiment: records.Experiment) -> dict[str, Any]:
  """Returns the set leaves as nested plain values, ready for JSON."""

  def plain(record: Any) -> dict[str, Any]:
    values = {}
    for field in dataclasses.fields(record):
      value = getattr(record, field.name)
      if dataclasses.is_dataclass(value):
        values[field.name] = plain(value)
      elif value is not None:
        values[field.name] = (
          str(value) if isinstance(value, enum.StrEnum) else value
        )
    return values

  return plain(experiment)


def from_dict(values: Mapping[str, Any]) -> records.Experiment:
  """Returns the experiment that `to_dict` wrote.

  Raises:
    UsageError: If a name is unknown or a value is not allowed.
  """
  return _record_from_dict(records.Experiment, values, prefix='')


def _record_from_dict(
  record_type: type, values: Mapping[str, Any], prefix: str
) -> Any:
  fields = {f.name: f for f in dataclasses.fields(record_type)}
  if not isinstance(values, Mapping):
    raise validate.error(
      prefix.rstrip('.') or 'config',
      expected='a group of leaves',
      found=values,
    )
  for name in values:
    if name not in fields:
      plain = isinstance(name, str) and name.isprintable()
      raise validate.error(
        prefix + (name if plain else repr(name)),
        expected='a leaf of the config',
        found='an unknown one',
      )
  arguments = dict(values)
  for name, field in fields.items():
    if dataclasses.is_dataclass(field.type):
      arguments[name] = _record_from_dict(
        field.type, values.get(name, {}), prefix=name + '.'
      )
  return record_type(**arguments)
