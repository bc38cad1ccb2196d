"""The Python containers of a TFF value: taken apart, and put together again.

TFF's own conversions look at types again in every round, which takes longer
than training a client of a small model.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.types import type_conversions


def flatten(value: Any) -> list[Any]:
  """Returns the leaves in TFF's order: mappings keep the order that they have.

  >>> flatten({'b': [1, 2], 'a': (3,)})
  [1, 2, 3]
  """
  parts = _parts(value)
  if parts is None:
    return [value]
  return [leaf for part in parts for leaf in flatten(part)]


def template(type_spec: tff.Type) -> Any:
  """Returns a value of this type whose leaves are `None`, for `fill`."""
  leaves = [None] * len(structure.flatten(type_spec))
  packed = structure.pack_sequence_as(type_spec, leaves)
  return type_conversions.type_to_py_container(packed, type_spec)


def fill(template: Any, leaves: Sequence[Any]) -> Any:
  """Returns the containers of `template` around `leaves`.

  >>> fill({'b': [None, None], 'a': (None,)}, [1, 2, 3])
  {'b': [1, 2], 'a': (3,)}

  Raises:
    ValueError: If there are more or fewer leaves than in the template.
  """
  remaining = iter(leaves)
  try:
    filled = _fill(template, remaining)
  except StopIteration:
    raise ValueError('fewer leaves than in the template') from None
  if list(remaining):
    raise ValueError('more leaves than in the template')
  return filled


def _parts(value: Any) -> list[Any] | None:
  """Returns what a container holds; `None` if the value is none."""
  if isinstance(value, structure.Struct):
    return [part for _, part in structure.iter_elements(value)]
  if isinstance(value, Mapping):
    return list(value.values())
  if isinstance(value, list | tuple):
    return list(value)
  if attrs.has(type(value)):
    return [getattr(value, field.name) for field in attrs.fields(type(value))]
  return None


def _fill(template: Any, leaves: Iterator[Any]) -> Any:
  parts = _parts(template)
  if parts is None:
    return next(leaves)
  kind = type(template)
  # A list, not a generator, inside which an exhausted iterator would be an
  # error of another kind.
  filled = [_fill(part, leaves) for part in parts]
  if isinstance(template, structure.Struct):
    names = [name for name, _ in structure.iter_elements(template)]
    return structure.Struct(list(zip(names, filled, strict=True)))
  if isinstance(template, Mapping):
    return kind(zip(template, filled, strict=True))
  if hasattr(template, '_fields'):
    return kind(*filled)
  if isinstance(template, list | tuple):
    return kind(filled)
  names = [field.name for field in attrs.fields(kind)]
  return kind(**dict(zip(names, filled, strict=True)))
