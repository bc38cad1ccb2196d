"""SCAFFOLD: control variates take the drift of clients out of local steps.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: stochastic controlled
averaging for federated learning", ICML 2020 (arXiv:1910.06378), Algorithm 1
with option II. Client k keeps a control variate c_k between its participations,
the server their mean c over all N clients (`population`), from zeros:

  client k:  w_k <- K_k steps from w along  gradient - c_k + c  at `rate` eta
             c_k' = c_k - c + (w - w_k) / (K_k eta)
             sends w - w_k and c_k' - c_k, and keeps c_k'
  server:    w <- server_optimizer(w, gradient=mean over the cohort of w - w_k)
             c <- c + 1/N sum over the cohort of (c_k' - c_k)

c_k' is the mean of the gradients that the client's steps saw. That holds for
plain SGD alone, so another client optimizer is refused. K_k are the steps that
the client took: unequal clients take unequally many. A client whose update is
rejected, and one that took no step, keeps c_k. With one client, or in a first
round, c_k = c and this is `fed_avg`.

c is the mean of the c_k, each client counted once, as in the paper's objective:
updates weighted by examples are refused.

Releases from a cohort: the average update, the sum of the changes of control
variates and train metrics. The second is neither clipped nor noised by any
mechanism here, so it is refused under user-level privacy.
"""

import collections
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import collecting
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import processes
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop

CONTROL = 'control'
"""Name of c_k in a client's state."""


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  population: int,
  client_optimizer: tff.learning.optimizers.Optimizer,
  client_learning_rate: float,
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
    population: N, the number of clients, whether they ever take part or not.
    client_optimizer: SGD without momentum.
    client_learning_rate: eta where `rate` is unset.
    server_optimizer: Takes the average update as its gradient.
    schedule: Epochs and batches on a client.
    protection: What happens to the update; nothing may noise local steps.
    aggregator: Averages updates.
    weighting: Must be uniform.
    rate: The clients' learning rate by round; unset means that it never
      changes.
    distributor: Builds the broadcast of the weights.

  Raises:
    ValueError: If the population is empty, updates would be weighted by
      examples, or local steps noised.
  """
  if population < 1:
    raise ValueError(
      f'Expected a population of at least 1, found {population}.'
    )
  if weighting is not config.Weighting.UNIFORM:
    raise ValueError(f'Expected uniform weighting, found {weighting}.')
  if protection.gradient is not training_loop.batch_gradient:
    raise ValueError('Expected no noise on local steps: states keep them.')
  client_update = _client_update(
    model, client_optimizer, schedule=schedule, release=protection.release
  )
  return fed_avg.compose(
    model,
    client_work_process=_client_work(
      model,
      client_update,
      population=population,
      protection=protection,
      rate=rate or (lambda _: tf.constant(client_learning_rate, tf.float32)),
    ),
    server_optimizer=server_optimizer,
    aggregator=aggregator,
    distributor=distributor,
  )


def _client_update(
  model: tff.learning.models.FunctionalModel,
  optimizer: tff.learning.optimizers.Optimizer,
  *,
  schedule: training_loop.Schedule,
  release: protections.Release,
) -> Any:
  """Returns (c and eta, weights, element) -> what a client sends and keeps."""
  weigh = model_delta.weigh_by(config.Weighting.UNIFORM)

  def client_update(sent, weights, element):
    start = (tuple(weights.trainable), weights.non_trainable)
    own = element[training_loop.STATE][CONTROL]
    correction = tuple(map(tf.subtract, sent[CONTROL], own))
    trained, metrics = training_loop.train(
      model,
      training_loop.add_term(
        training_loop.batch_gradient(model), lambda *_: correction
      ),
      optimizer=optimizer,
      schedule=schedule,
      weights=start,
      element=element,
      learning_rate=sent['learning_rate'],
    )
    update = tuple(map(tf.subtract, start[0], trained))
    length = sent['learning_rate'] * tf.cast(metrics['num_batches'], tf.float32)
    control = tuple(
      tf.where(length > 0, delta / length - shift, mine)
      for delta, shift, mine in zip(update, correction, own, strict=True)
    )
    result, metrics, kept = model_delta.finish(
      model,
      *weigh(update, start, element, metrics),
      release=release,
      metrics=metrics,
      element=element,
      kept={CONTROL: control},
    )
    change = tuple(map(tf.subtract, kept[CONTROL], own))
    return result, metrics, processes.state_row(element, kept), change

  return client_update


def _client_work(
  model: tff.learning.models.FunctionalModel,
  client_update: Any,
  *,
  population: int,
  protection: protections.Protection,
  rate: processes.Rate,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns client work whose state is the round and c."""
  weights_type = processes.weights_type(model)
  data_type = processes.data_type(
    model,
    protection.extra_spec,
    keeps=processes.parts_like(
      model.initial_weights[0], (CONTROL, *protection.release.keeps)
    ),
  )
  update = tf.function(client_update, autograph=False)

  @tff.tensorflow.computation
  def initial_state():
    control = tuple(map(tf.zeros_like, model.initial_weights[0]))
    return collections.OrderedDict(
      [('rounds', tf.constant(0, tf.int64)), (CONTROL, control)]
    )

  state_type = initial_state.type_signature.result

  @tff.tensorflow.computation(state_type)
  def what_is_sent(state):
    return collections.OrderedDict(
      [
        ('learning_rate', rate(state['rounds'] + 1)),
        (CONTROL, tuple(map(tf.identity, state[CONTROL]))),
      ]
    )

  @tff.tensorflow.computation(
    what_is_sent.type_signature.result, weights_type, data_type
  )
  def work(sent, weights, dataset):
    # Outside of any inner function: see `processes.build`.
    return update(sent, weights, dataset.get_single_element())

  @tff.tensorflow.computation(state_type, weights_type.trainable)
  def next_state(before, change):
    control = tuple(
      c + d / np.float32(population)
      for c, d in zip(before[CONTROL], change, strict=True)
    )
    return collections.OrderedDict(
      [('rounds', before['rounds'] + 1), (CONTROL, control)]
    )

  @tff.federated_computation
  def initialize():
    return tff.federated_eval(initial_state, tff.SERVER)

  @tff.federated_computation(
    initialize.type_signature.result,
    tff.FederatedType(weights_type, tff.CLIENTS),
    tff.FederatedType(data_type, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    sent = tff.federated_broadcast(tff.federated_map(what_is_sent, state))
    result, metrics, rows, change = tff.federated_map(
      work, (sent, weights, client_data)
    )
    return tff.templates.MeasuredProcessOutput(
      tff.federated_map(next_state, (state, tff.federated_sum(change))),
      result,
      processes.measurements(model, metrics, collecting.client_states(rows)),
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
