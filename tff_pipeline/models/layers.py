"""The layers of a model and their weights, to tell some of them apart."""

import dataclasses
import re

from keras.src.utils import generic_utils
import tensorflow as tf

from tff_pipeline import validate

_FLAG = 'algorithm.local_layers'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
  """A layer that has weights.

  Attributes:
    name: Its name.
    is_named: Whether somebody gave it that name. One that Keras made up counts
      on with every model of a process (dense_7), so it says nothing.
    weights: Which ones of the model's trainable weights are its own.
  """

  name: str
  is_named: bool
  weights: tuple[int, ...]


def of(model: tf.keras.Model) -> tuple[Layer, ...]:
  """Returns the layers that have weights, inputs first.

  A model within the model counts by its layers, any other layer as one.
  """
  numbers = {id(v): i for i, v in enumerate(model.trainable_variables)}
  return tuple(
    Layer(
      name=layer.name,
      is_named=not _is_made_up(layer),
      weights=tuple(numbers[id(v)] for v in layer.trainable_variables),
    )
    for layer in _units(model)
    if layer.trainable_variables
  )


def choose(layers: tuple[Layer, ...], wanted: str) -> tuple[Layer, ...]:
  """Returns the layers that `--algorithm.local_layers` means.

  Args:
    layers: Those of the model.
    wanted: A number, of last layers; or names with commas between.

  Raises:
    UsageError: If there are no such layers, or if none would be left to share.
  """
  if re.fullmatch(r'\d+', wanted.strip()):
    number = int(wanted)
    if number >= len(layers):
      raise _error(layers, f'a number below {len(layers)}', wanted)
    return layers[len(layers) - number :]
  names = [name.strip() for name in wanted.split(',')]
  known = [layer.name for layer in layers if layer.is_named]
  unknown = [name for name in names if known.count(name) != 1]
  if unknown:
    raise _error(layers, 'a number or names that the model gives', unknown[0])
  chosen = tuple(layer for layer in layers if layer.name in names)
  if len(chosen) == len(layers):
    raise _error(layers, 'at least one layer that is shared', wanted)
  return chosen


def _error(
  layers: tuple[Layer, ...], expected: str, found: str
) -> validate.UsageError:
  listed = ', '.join(
    layer.name if layer.is_named else '(without a name of its own)'
    for layer in layers
  )
  return validate.error(
    _FLAG,
    expected=f'{expected}; the layers with weights are: {listed}',
    found=found,
  )


def _units(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
  units = []
  for layer in model.layers:
    nested = isinstance(layer, tf.keras.Model)
    units += _units(layer) if nested else [layer]
  return units


def _is_made_up(layer: tf.keras.layers.Layer) -> bool:
  kind = generic_utils.to_snake_case(type(layer).__name__)
  return re.fullmatch(rf'{kind}(_\d+)?', layer.name) is not None
