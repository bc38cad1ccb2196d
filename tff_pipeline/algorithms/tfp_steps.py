"""TensorFlow Privacy's DP-SGD steps on pooled data.

Their noise comes from TensorFlow's own generator: no key decides it, and no
step can be taken again with the same values.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import tensorflow_privacy as tfp

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.algorithms import pooled_steps
from tff_pipeline.data import client_data

_BATCH_OF_CHECK = 8


def check_examples_apart(
  model: tff.learning.models.FunctionalModel, examples: client_data.Examples
) -> None:
  """Refuses a model whose output for an example depends on another one.

  TensorFlow Privacy's optimizers clip the gradients of the losses of a batch
  that went through the model as a whole. One example would be in all of them,
  and clipping each would not bound what it adds. Our own step takes each
  example through such a model alone.
  """
  batch = np.array(examples.x[:_BATCH_OF_CHECK])
  other = batch.copy()
  other[0] = examples.x[-1]
  with tf.Graph().as_default():
    outputs = [
      model.predict_on_batch(
        tf.nest.map_structure(tf.constant, tuple(model.initial_weights)),
        tf.constant(x),
        training=tf.zeros([2], tf.int64),
      )
      for x in (batch, other)
    ]
    with tf.compat.v1.Session() as session:
      one, two = session.run(outputs)
  if not np.allclose(one[1:], two[1:], rtol=1e-4, atol=1e-6, equal_nan=True):
    raise validate.error(
      'task.model',
      expected='a model that treats each example by itself with '
      f'--algorithm.batches={config.Batches.FIXED_SIZE}',
      found='outputs that change with another example of the batch',
      remedy=f'Set --algorithm.batches={config.Batches.POISSON}',
    )


class TfpSteps:
  """TensorFlow Privacy's optimizers on a Keras model."""

  def __init__(
    self,
    model: tf.keras.Model,
    loss: tf.keras.losses.Loss,
    examples: client_data.Examples,
    *,
    client: config.Client,
    privacy: config.Privacy,
  ):
    self._model = model
    self._loss = loss
    self._x = tf.constant(examples.x)
    self._y = tf.constant(examples.y)
    self._optimizer = _tfp_optimizer(client, privacy)
    # Its variables have to be there before the first step, for checkpoints.
    self._optimizer._create_all_weights(model.trainable_variables)
    self._initial = self._current()
    # Traced now: once anything has called a Keras model in a `tf.Graph`, as an
    # evaluation does, Keras refuses to call those made before.
    self._step = tf.function(
      self._take_step, autograph=False
    ).get_concrete_function(tf.TensorSpec([client.batch_size], tf.int64))

  def _current(self) -> pooled_steps.State:
    weights = tuple(v.numpy() for v in self._model.trainable_variables)
    return pooled_steps.State(
      pooled_steps.Weights(weights, ()), tuple(self._optimizer.get_weights())
    )

  def _take_step(self, rows: tf.Tensor) -> tf.Tensor:
    x, y = tf.gather(self._x, rows), tf.gather(self._y, rows)
    losses = []

    def compute_losses():
      # The optimizer clips by example, so it needs a loss by example. Not that
      # of a batch without reduction: a loss may average over more than rows.
      losses.append(
        tf.vectorized_map(
          lambda one: self._loss(one[0][tf.newaxis], one[1][tf.newaxis]),
          (y, self._model(x, training=True)),
        )
      )
      return losses[-1]

    gradients = self._optimizer._compute_gradients(
      compute_losses, self._model.trainable_variables
    )
    self._optimizer.apply_gradients(gradients)
    return tf.reduce_sum(losses[-1])

  def initialize(self) -> pooled_steps.State:
    """Returns the initial state."""
    return self._initial

  def run(
    self,
    state: pooled_steps.State,
    batches: Sequence[np.ndarray],
    *,
    key: np.ndarray,
    noise_key: np.ndarray,
    learning_rate: float | None,
  ) -> tuple[pooled_steps.State, dict[str, Any]]:
    """Takes a step on each batch of row numbers; its noise has no key."""
    del key, noise_key
    if learning_rate is not None:
      self._optimizer.learning_rate = learning_rate
    for variable, value in zip(
      self._model.trainable_variables,
      state.global_model_weights.trainable,
      strict=True,
    ):
      variable.assign(value)
    self._optimizer.set_weights(list(state.optimizer))
    loss_sum = sum(float(self._step(tf.constant(rows))) for rows in batches)
    count = sum(map(len, batches))
    metrics = {
      'loss': loss_sum / count,
      'num_examples': count,
      'num_batches': len(batches),
    }
    return self._current(), metrics


def _tfp_optimizer(client: config.Client, privacy: config.Privacy) -> Any:
  """Returns TensorFlow Privacy's form of the client's optimizer."""
  shared = {
    'l2_norm_clip': privacy.clip_norm,
    'noise_multiplier': privacy.noise_multiplier,
    'num_microbatches': client.batch_size,
    'learning_rate': client.learning_rate,
  }
  if client.optimizer is config.Optimizer.SGD:
    return tfp.VectorizedDPKerasSGDOptimizer(
      momentum=client.momentum or 0.0, **shared
    )
  if client.optimizer is config.Optimizer.ADAM:
    moments = {
      name: getattr(client, name)
      for name in ('beta_1', 'beta_2', 'epsilon')
      if getattr(client, name) is not None
    }
    return tfp.VectorizedDPKerasAdamOptimizer(**moments, **shared)
  raise validate.error(
    'client.optimizer',
    expected=f'{config.Optimizer.SGD} or {config.Optimizer.ADAM} with '
    f'--algorithm.batches={config.Batches.FIXED_SIZE}, which TensorFlow '
    'Privacy has',
    found=client.optimizer,
    remedy=f'Set --algorithm.batches={config.Batches.POISSON}',
  )
