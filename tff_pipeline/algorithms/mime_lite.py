"""MimeLite: local steps with the server's optimizer state, held fixed.

Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh, "Breaking the centralized
barrier for cross-device federated learning", NeurIPS 2021 (arXiv:2008.03606),
Algorithm 1 (MimeLite), with s the state of `client_optimizer` (its momentum,
for example) kept at the server:

  client k:  w_k <- steps of client_optimizer from w, each with the state s
             g_k <- gradient of the mean loss of all its examples at w
  server:    s <- client_optimizer's next state for the gradient sum_k p_k g_k
             w <- server_optimizer(w, gradient=sum_k p_k (w - w_k))

With SGD without momentum, s is empty and this is `fed_avg`. Mime itself also
corrects each local gradient by the cohort's: a broadcast that depends on an
aggregate of the same round, which no single pass over the cohort can do.

Releases from a cohort: the average update, the average gradient and train
metrics. The gradient is a second release from the same cohort; no mechanism
here clips and noises it, so it is refused under privacy.
"""

import collections
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import full_pass
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import processes
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  client_optimizer: tff.learning.optimizers.Optimizer,
  server_optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  protection: protections.Protection,
  aggregator: tff.aggregators.AggregationFactory,
  weighting: config.Weighting,
  rate: processes.Rate | None = None,
  distributor: fed_avg.Distributor = (
    tff.learning.templates.build_broadcast_process
  ),
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    client_optimizer: Its state lives at the server.
    server_optimizer: Takes the average update as its gradient.
    schedule: Epochs and batches on a client.
    protection: What happens to the update; nothing may noise local steps.
    aggregator: Averages updates.
    weighting: Weight of a client in both averages.
    rate: The clients' learning rate by round; unset means its optimizer's.
    distributor: Builds the broadcast of the weights.

  Raises:
    ValueError: If the protection noises local steps.
  """
  if protection.gradient is not training_loop.batch_gradient:
    raise ValueError('Expected no noise on local steps: gradients leave too.')
  return fed_avg.compose(
    model,
    client_work_process=_client_work(
      model,
      client_optimizer,
      schedule=schedule,
      protection=protection,
      weighting=weighting,
      rate=rate,
    ),
    server_optimizer=server_optimizer,
    aggregator=aggregator,
    distributor=distributor,
  )


class _WithState(tff.learning.optimizers.Optimizer):
  """An optimizer that takes each step from one and the same state."""

  def __init__(
    self, optimizer: tff.learning.optimizers.Optimizer, state: Any
  ) -> None:
    self._optimizer = optimizer
    self._state = state

  def initialize(self, specs: Any) -> Any:
    return collections.OrderedDict()

  def next(self, state: Any, weights: Any, gradients: Any) -> Any:
    _, weights = self._optimizer.next(self._state, weights, gradients)
    return state, weights


def _client_update(
  model: tff.learning.models.FunctionalModel,
  optimizer: tff.learning.optimizers.Optimizer,
  *,
  schedule: training_loop.Schedule,
  release: protections.Release,
  weigh: model_delta.Weigh,
) -> Any:
  """Returns (optimizer state, weights, element) -> what a client sends."""

  def client_update(optimizer_state, weights, element):
    start = (tuple(weights.trainable), weights.non_trainable)
    gradient, _ = full_pass.gradient(
      model, batch_size=schedule.batch_size, weights=start, element=element
    )
    trained, metrics = training_loop.train(
      model,
      training_loop.batch_gradient(model),
      optimizer=_WithState(optimizer, optimizer_state),
      schedule=schedule,
      weights=start,
      element=element,
    )
    update = tf.nest.map_structure(tf.subtract, start[0], trained)
    update, weight = weigh(update, start, element, metrics)
    # What one client sends is good as a whole or not at all.
    finite = tf.math.is_finite(tf.linalg.global_norm(gradient))
    weight = tf.where(finite, weight, np.nan)
    gradient = tuple(tf.where(finite, g, tf.zeros_like(g)) for g in gradient)
    result, metrics, _ = model_delta.finish(
      model, update, weight, release=release, metrics=metrics, element=element
    )
    return result, metrics, gradient

  return client_update


def _client_work(
  model: tff.learning.models.FunctionalModel,
  optimizer: tff.learning.optimizers.Optimizer,
  *,
  schedule: training_loop.Schedule,
  protection: protections.Protection,
  weighting: config.Weighting,
  rate: processes.Rate | None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns client work that keeps the optimizer's state at the server."""
  weights_type = processes.weights_type(model)
  data_type = processes.data_type(model, protection.extra_spec)
  specs = tuple(
    tf.TensorSpec(w.shape, w.dtype) for w in model.initial_weights[0]
  )
  gradients = tff.aggregators.MeanFactory(no_nan_division=True).create(
    weights_type.trainable, tff.TensorType(np.float32)
  )
  update = tf.function(
    _client_update(
      model,
      optimizer,
      schedule=schedule,
      release=protection.release,
      weigh=model_delta.weigh_by(weighting),
    ),
    autograph=False,
  )

  @tff.tensorflow.computation
  def initial_state():
    state = optimizer.initialize(specs)
    if rate is not None:
      state = training_loop.with_learning_rate(optimizer, state, rate(1))
    return collections.OrderedDict(rounds=tf.constant(0, tf.int64), state=state)

  state_type = initial_state.type_signature.result

  @tff.tensorflow.computation(state_type.state, weights_type, data_type)
  def work(state, weights, dataset):
    return update(state, weights, dataset.get_single_element())

  @tff.tensorflow.computation(state_type, weights_type.trainable)
  def next_state(before, gradient):
    rounds = before['rounds'] + 1
    state, _ = optimizer.next(
      before['state'], tuple(map(tf.zeros_like, gradient)), tuple(gradient)
    )
    if rate is not None:
      state = training_loop.with_learning_rate(
        optimizer, state, rate(rounds + 1)
      )
    return collections.OrderedDict(rounds=rounds, state=state)

  @tff.federated_computation
  def initialize():
    return tff.federated_zip(
      (tff.federated_eval(initial_state, tff.SERVER), gradients.initialize())
    )

  @tff.federated_computation(
    initialize.type_signature.result,
    tff.FederatedType(weights_type, tff.CLIENTS),
    tff.FederatedType(data_type, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    own, aggregator_state = state
    result, metrics, gradient = tff.federated_map(
      work, (tff.federated_broadcast(own.state), weights, client_data)
    )
    mean = gradients.next(aggregator_state, gradient, result.update_weight)
    own = tff.federated_map(next_state, (own, mean.result))
    return tff.templates.MeasuredProcessOutput(
      tff.federated_zip((own, mean.state)),
      result,
      processes.measurements(model, metrics),
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
