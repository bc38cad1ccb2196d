"""Our own DP-SGD steps on pooled data, whose noise is keyed by the step.

Taken with `client_work`'s gradients: a round with the same keys and batches
releases the same values again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline import optimizers
from tff_pipeline.algorithms import pooled_steps
from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.privacy import mechanisms


class KeyedSteps:
  """Our own step, in a graph and session of its own.

  A functional model made from Keras runs in graphs only.
  """

  def __init__(
    self,
    model: tff.learning.models.FunctionalModel,
    examples: client_data.Examples,
    *,
    client: config.Client,
    privacy: config.Privacy,
  ):
    self._model = model
    self._optimizer = optimizers.build(client)
    self._gradient = _gradient(model, privacy)
    self._batch_size = client.batch_size
    graph = tf.Graph()
    with graph.as_default():
      self._state, initial = self._placeholders()
      self._rows = tf.compat.v1.placeholder(tf.int64, [None])
      self._ends = tf.compat.v1.placeholder(tf.int64, [None])
      self._keys = {
        name: tf.compat.v1.placeholder(tf.int64, [2])
        for name in (training_loop.KEY, training_loop.NOISE_KEY)
      }
      data, load, feed = _session_constants(examples)
      self._results = self._train(data)
    self._session = tf.compat.v1.Session(graph=graph)
    self._session.run(load, feed)
    self._initial = self._session.run(initial)

  def _placeholders(self) -> tuple[pooled_steps.State, pooled_steps.State]:
    trainable = tuple(map(tf.constant, self._model.initial_weights[0]))
    initial = pooled_steps.State(
      pooled_steps.Weights(trainable, ()),
      self._optimizer.initialize(
        tuple(tf.TensorSpec(w.shape, w.dtype) for w in trainable)
      ),
    )
    # Hyper-parameters are Python numbers at first.
    initial = tf.nest.map_structure(tf.convert_to_tensor, initial)
    state = tf.nest.map_structure(
      lambda t: tf.compat.v1.placeholder(t.dtype, t.shape), initial
    )
    return state, initial

  def _train(
    self, data: tuple[tf.Tensor, tf.Tensor]
  ) -> tuple[pooled_steps.State, Any]:
    """Builds the loop over the batches of a round."""
    start = self._state.global_model_weights.trainable

    def take_step(index, first, trainable, optimizer_state, metrics):
      rows = self._rows[first : self._ends[index]]
      x, y = (tf.gather(part, rows) for part in data)
      step = training_loop.Step(
        number=index,
        seed=keyed_noise.derive_seed(self._keys[training_loop.KEY], index),
        batch_size=self._batch_size,
        start=start,
        element=self._keys,
      )
      found = self._gradient.call((trainable, ()), x, y, step)
      optimizer_state, trainable = self._optimizer.next(
        optimizer_state, trainable, found.value
      )
      metrics = train_metrics.add_batch(
        self._model,
        metrics,
        loss=found.loss,
        output=found.output,
        y=y,
        count=tf.size(rows),
      )
      metrics = train_metrics.add_counts(metrics, found.counts)
      return (
        index + 1,
        self._ends[index],
        tuple(trainable),
        optimizer_state,
        metrics,
      )

    _, _, trainable, optimizer_state, metrics = tf.while_loop(
      lambda index, *_: index < tf.size(self._ends, tf.int64),
      take_step,
      (
        tf.constant(0, tf.int64),
        tf.constant(0, tf.int64),
        start,
        self._state.optimizer,
        train_metrics.zero(self._model, counts=self._gradient.counts),
      ),
      parallel_iterations=1,
    )
    final = train_metrics.finalizer(self._model)(metrics)
    return pooled_steps.State(
      pooled_steps.Weights(trainable, ()), optimizer_state
    ), final

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
    """Takes a step on each batch of row numbers."""
    state = state._replace(
      optimizer=training_loop.with_learning_rate(
        self._optimizer, state.optimizer, learning_rate
      )
    )
    feed = dict(
      zip(tf.nest.flatten(self._state), tf.nest.flatten(state), strict=True)
    )
    feed[self._rows] = np.concatenate(batches)
    feed[self._ends] = np.cumsum([len(rows) for rows in batches])
    feed[self._keys[training_loop.KEY]] = key
    feed[self._keys[training_loop.NOISE_KEY]] = noise_key
    return self._session.run(self._results, feed)


def _gradient(
  model: tff.learning.models.FunctionalModel, privacy: config.Privacy
) -> training_loop.GradientFn:
  """Returns the mechanism's gradient, over the nominal batch size."""
  protection = mechanisms.protection(privacy)
  gradient = protection.gradient(model)
  if protection.gradient is not training_loop.batch_gradient:
    return gradient

  def over_nominal_size(weights, x, y, step):
    found = gradient.call(weights, x, y, step)
    share = tf.size(y) / step.batch_size
    value = tf.nest.map_structure(
      lambda g: tf.where(
        share > 0, g * tf.cast(share, g.dtype), tf.zeros_like(g)
      ),
      tf.nest.map_structure(tf.convert_to_tensor, found.value),
    )
    return found._replace(value=value)

  return training_loop.GradientFn(
    call=over_nominal_size, counts=gradient.counts
  )


def _session_constants(
  examples: client_data.Examples,
) -> tuple[tuple[tf.Tensor, tf.Tensor], Any, dict[Any, np.ndarray]]:
  """Returns variables for x and y, what loads them, and what to feed it.

  Constants of a graph are limited to 2 GB, and feeding them in each round would
  copy them.
  """
  variables, feed = [], {}
  for part in (examples.x, examples.y):
    source = tf.compat.v1.placeholder(part.dtype, part.shape)
    feed[source] = part
    variables.append(
      tf.compat.v1.Variable(source, trainable=False, use_resource=True)
    )
  load = tf.compat.v1.global_variables_initializer()
  return tuple(v.read_value() for v in variables), load, feed
