"""A Keras factory -> a `tff.learning.models.FunctionalModel`, checked.

A functional model has no variables: its forward pass takes the weights as an
argument. That is what lets a client's training be a loop over tensors, and a
whole round be one graph.
"""

from collections.abc import Callable, Iterator
import contextlib
import random

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import validate
from tff_pipeline.models import keyed_layers
from tff_pipeline.models import layers as model_layers

# Separates this use of the experiment's seed from cohorts and partition.
_STREAM = 0x1417


class LayeredModel(tff.learning.models.FunctionalModel):
  """A functional model that knows which layer a weight is of.

  Attributes:
    layers: Those that have weights.
  """

  def __init__(
    self,
    model: tff.learning.models.FunctionalModel,
    *,
    layers: tuple[model_layers.Layer, ...],
  ):
    """Takes everything else from `model`."""
    vars(self).update(vars(model))
    self.layers = layers


@contextlib.contextmanager
def _seeded_initializers(seed: int) -> Iterator[None]:
  """Makes Keras draw initial weights from `seed`, and leaves no trace.

  An initializer without a seed of its own asks Python's `random` for one
  (keras.src.backend.RandomGenerator, rng_type='stateless'), so only that
  generator is seeded, and put back afterwards. TensorFlow's and NumPy's global
  seeds are never touched: they would decide DP noise elsewhere.
  """
  before = random.getstate()
  random.seed(f'{_STREAM}/{seed}')
  try:
    yield
  finally:
    random.setstate(before)


def keras_model(
  factory: Callable[[], tf.keras.Model], *, seed: int
) -> tf.keras.Model:
  """Returns a fresh model with the initial weights that `seed` decides.

  Raises:
    UsageError: If the model cannot be trained federatedly: compiled, with
      batch normalization, or with a training step of its own.
  """
  with _seeded_initializers(seed):
    model = factory()
  _check(model)
  return model


def _check(model: tf.keras.Model) -> None:
  if not isinstance(model, tf.keras.Model):
    raise validate.error(
      'task.model',
      expected='a factory that returns a tf.keras.Model',
      found=type(model).__name__,
    )
  # `train_step` is never called here, so a model that keeps its privacy in it
  # (DPModel, DPSequential), at whatever depth, would train without any.
  for part in model._flatten_layers(include_self=True, recursive=True):
    if isinstance(part, tf.keras.Model):
      _check_plain(part)
  for layer in model._flatten_layers(include_self=False, recursive=True):
    if isinstance(layer, tf.keras.layers.BatchNormalization):
      raise validate.error(
        'task.model',
        expected='no batch normalization: its statistics leave the clients '
        'unclipped',
        found=f'layer {layer.name}',
        remedy='Use tf.keras.layers.GroupNormalization',
      )
  if model.non_trainable_variables:
    raise validate.error(
      'task.model',
      expected='trainable weights only',
      found=f'non-trainable {model.non_trainable_variables[0].name}',
    )


def _check_plain(model: tf.keras.Model) -> None:
  if getattr(model, 'optimizer', None) is not None:
    raise validate.error(
      'task.model', expected='an uncompiled Keras model', found='a compiled one'
    )
  plain = (tf.keras.Model.train_step, tf.keras.Sequential.train_step)
  if type(model).train_step not in plain:
    raise validate.error(
      'task.model',
      expected='a model without a train_step of its own, which federated '
      'training would never call',
      found=type(model).__name__,
      remedy='Take privacy from --privacy.mechanism, not from the model',
    )


def build(
  model: tf.keras.Model,
  *,
  loss: tf.keras.losses.Loss,
  metric_factory: Callable[[], dict[str, tf.keras.metrics.Metric]],
  input_spec: dict[str, tf.TensorSpec],
) -> LayeredModel:
  """Returns the functional form; `model`'s weights are the initial ones.

  `predict_on_batch` takes `training` as a boolean, as TFF has it, or as a seed,
  int64[2]. A seed trains, and decides everything that Keras' own layers draw
  (dropout, Gaussian noise, recurrent dropout): the output is a pure function of
  weights, batch and seed. `training=True`, as TFF's stock client work calls it,
  is refused if there is anything to draw.

  Args:
    model: From `keras_model`.
    loss: Averages over a batch.
    metric_factory: Builds fresh metrics by name.
    input_spec: Batch specs under the keys x and y.

  Raises:
    UsageError: If the loss does not average: gradients would be summed, and
      the learning rate would mean something else. If a layer is used twice, or
      draws random numbers that no seed decides.
  """
  if loss.reduction not in (
    tf.keras.losses.Reduction.AUTO,
    tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE,
  ):
    raise validate.error(
      'task.name',
      expected='a loss that averages over the batch',
      found=f'reduction {loss.reduction}',
    )

  def fresh():
    # TFF asks for the model once outside of any graph, for its weights.
    if tf.executing_eagerly():
      return model
    return keyed_layers.clone(model)

  built = tff.learning.models.functional_model_from_keras(
    fresh, loss, input_spec, metric_factory
  )
  _check_weights(built, model)
  _check_random_operations(built)
  return LayeredModel(built, layers=model_layers.of(model))


def _check_weights(
  built: tff.learning.models.FunctionalModel, model: tf.keras.Model
) -> None:
  cloned, own = len(built.initial_weights[0]), len(model.trainable_variables)
  if cloned != own:
    raise validate.error(
      'task.model',
      expected='a model whose layers share no weights',
      found=f'{own} weights that become {cloned} in a copy',
    )


def _check_random_operations(
  built: tff.learning.models.FunctionalModel,
) -> None:
  with tf.Graph().as_default():
    weights = tf.nest.map_structure(tf.constant, tuple(built.initial_weights))
    x = tf.nest.map_structure(
      lambda s: tf.compat.v1.placeholder(s.dtype, s.shape),
      built.input_spec['x'],
    )
    output = built.predict_on_batch(
      weights, x, training=tf.zeros([2], tf.int64)
    )
    found = keyed_layers.unseeded_operations(output)
  if found:
    raise validate.error(
      'task.model',
      expected='random numbers from the layers of Keras only: a replayed round '
      'has to train in the same way',
      found=f'the operation {min(found)}',
    )
