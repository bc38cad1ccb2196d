"""Keras models whose own randomness (dropout) follows a seed.

In a graph, Keras draws dropout masks from a stateful operation: a replayed
round would train with other masks, and release another update under the same
DP noise, so that the difference of the two is not noised at all.
"""

from collections.abc import Iterable
from typing import Any

from keras.src import backend
import tensorflow as tf

from tff_pipeline import keyed_noise
from tff_pipeline import validate
from tff_pipeline.client_work import example_norms
from tff_pipeline.models import cpu_layers

# Operations whose result no argument decides.
_UNSEEDED = frozenset(
  {
    'Multinomial',
    'ParameterizedTruncatedNormal',
    'RandomGamma',
    'RandomPoissonV2',
    'RandomShuffle',
    'RandomStandardNormal',
    'RandomUniform',
    'RandomUniformInt',
    'RngReadAndSkip',
    'RngSkip',
    'TruncatedNormal',
  }
)


class _Generator(backend.RandomGenerator):
  """Gives each random operation of a layer a seed of its own.

  Attributes:
    key: int64[2], below which those seeds are; `None` refuses to draw.
  """

  def __init__(self) -> None:
    super().__init__(rng_type=self.RNG_STATELESS, seed=0)
    self.restart(tf.zeros([2], tf.int64))

  def restart(self, key: tf.Tensor | None) -> None:
    """Derives the seeds of all further operations from `key`."""
    self.key = key
    self._operations = 0

  def make_seed_for_stateless_op(self) -> tf.Tensor:
    """Returns the seed of the next operation; int64[2].

    Raises:
      UsageError: If there is no key.
    """
    if self.key is None:
      raise validate.error(
        'task.model',
        expected='a model without dropout for this algorithm, which gives '
        'layers no seed',
        found='a layer that draws random numbers',
      )
    self._operations += 1
    return keyed_noise.derive_seed(self.key, self._operations)


def clone(model: tf.keras.Model) -> 'Keyed':
  """Returns a keyed model of the same layers, in the current graph."""
  return Keyed(tf.keras.models.clone_model(model, clone_function=_clone_layer))


def _clone_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
  # The generators have to be there before the layers are first called: a
  # stateful operation on a placeholder of Keras would remain in the graph.
  if isinstance(layer, tf.keras.Model):
    return tf.keras.models.clone_model(layer, clone_function=_clone_layer)
  copy = cpu_layers.faster(type(layer)).from_config(layer.get_config())
  for random_layer in _random_layers(copy):
    random_layer._random_generator = _Generator()
  example_norms.watch(copy, original=type(layer))
  return copy


def _random_layers(layer: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
  layers = layer._flatten_layers(include_self=True, recursive=True)
  return [found for found in layers if hasattr(found, '_random_generator')]


class Keyed:
  """A Keras model that takes a seed in the place of `training=True`.

  Attributes:
    variables: The model's.
    trainable_variables: The model's.
    non_trainable_variables: The model's.
  """

  def __init__(self, model: tf.keras.Model):
    self._model = model
    self.variables = model.variables
    self.trainable_variables = model.trainable_variables
    self.non_trainable_variables = model.non_trainable_variables

  def __call__(self, x: Any, training: bool | tf.Tensor) -> Any:
    """Returns the output for a batch.

    Args:
      x: The batch.
      training: Whether to train; or int64[2], which trains, with all
        randomness of Keras' layers a function of it.

    Raises:
      UsageError: If it trains without a seed, and a layer draws.
    """
    seeded = tf.is_tensor(training)
    for index, layer in enumerate(_random_layers(self._model)):
      layer._random_generator.restart(
        keyed_noise.derive_seed(training, index) if seeded else None
      )
    example_norms.begin_call()
    return self._model(x, training=True if seeded else training)


def unseeded_operations(output: Any) -> set[str]:
  """Returns the kinds of operations behind `output` that no seed decides.

  Operations that nothing depends on do not count: building a Keras model in a
  graph leaves some behind.

  Args:
    output: A structure of tensors of one graph.
  """
  tensors = tf.nest.flatten(output)
  definition = tensors[0].graph.as_graph_def()
  functions = {f.signature.name: f for f in definition.library.function}
  found = set()
  seen = set()
  pending = [(definition.node, [t.op.name for t in tensors])]
  while pending:
    for node in _needed(*pending.pop()):
      found |= {node.op} & _UNSEEDED
      for name in _called(node) - seen:
        seen.add(name)
        called = functions[name]
        pending.append((called.node_def, called.ret.values()))
  return found


def _needed(nodes: Iterable[Any], outputs: Iterable[str]) -> list[Any]:
  """Returns the nodes that the outputs of a graph or function depend on."""
  by_name = {node.name: node for node in nodes}
  needed = {}
  pending = list(outputs)
  while pending:
    name = pending.pop().split(':')[0]
    if name in by_name and name not in needed:  # Else an argument.
      needed[name] = by_name[name]
      pending.extend(s for s in needed[name].input if not s.startswith('^'))
  return list(needed.values())


def _called(node: Any) -> set[str]:
  """Returns the names of the functions that a node calls."""
  attributes = node.attr.values()
  lists = [a.list.func for a in attributes]
  single = [a.func for a in attributes if a.HasField('func')]
  return {f.name for f in single} | {f.name for fs in lists for f in fs}
