"""A small federated averaging whose clients remember, to try that with.

A client knows how often it took part, and the running sum of its mean features,
each times the number of that participation. Both shape what it sends: if either
is lost, mixed up or rolled back, the model comes out differently.
"""

import collections
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import collecting
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data

FEATURES = 64
# Not in the alphabetical order that TensorFlow sorts mappings in.
STATE_SPEC = collections.OrderedDict(
  total=tf.TensorSpec([FEATURES], tf.float32),
  participations=tf.TensorSpec([], tf.int32),
)


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  schedule: training_loop.Schedule,
  aggregator: Any = None,
) -> tff.learning.templates.LearningProcess:
  """Returns the process; `model` takes flat digits."""
  return fed_avg.compose(
    model,
    client_work_process=_client_work(model, schedule),
    server_optimizer=tff.learning.optimizers.build_sgdm(1.0),
    aggregator=aggregator or tff.aggregators.MeanFactory(),
  )


def expected_states(
  data: client_data.ClientData, cohorts: list[list[int]]
) -> dict[int, tuple[np.ndarray, int]]:
  """Returns client -> (total, participations), computed in NumPy."""
  states = {}
  for client in np.concatenate(cohorts).astype(int).tolist():
    total, count = states.get(client, (np.zeros(FEATURES), 0))
    mean = data.client(client)['x'].mean(axis=0)
    states[client] = total + (count + 1) * mean, count + 1
  return states


def _client_work(
  model: tff.learning.models.FunctionalModel, schedule: training_loop.Schedule
) -> tff.learning.templates.ClientWorkProcess:
  weights_type = tff.types.tensorflow_to_type(
    tf.nest.map_structure(
      lambda w: tf.TensorSpec(w.shape, w.dtype),
      tff.learning.models.ModelWeights(*map(tuple, model.initial_weights)),
    )
  )
  element = training_loop.element_spec(
    model,
    {
      training_loop.INDEX: training_loop.INDEX_SPEC,
      training_loop.STATE: STATE_SPEC,
    },
  )
  data_type = tff.SequenceType(tff.types.tensorflow_to_type(element))

  @tf.function
  def client_update(weights, element):
    trained, metrics = training_loop.train(
      model,
      training_loop.batch_gradient(model),
      optimizer=tff.learning.optimizers.build_sgdm(0.1),
      schedule=schedule,
      weights=(tuple(weights.trainable), weights.non_trainable),
      element=element,
    )
    state = element[training_loop.STATE]
    count = state['participations'] + 1
    times = tf.cast(count, tf.float32)
    total = state['total'] + times * tf.reduce_mean(element['x'], axis=0)
    update = tf.nest.map_structure(
      lambda old, new: (
        (old - new) * (1 + 0.1 * times) + 1e-3 * tf.reduce_mean(total)
      ),
      tuple(weights.trainable),
      trained,
    )
    return (
      tff.learning.templates.ClientResult(
        update=update,
        update_weight=tf.cast(metrics['num_examples'], tf.float32),
      ),
      metrics['num_examples'],
      collections.OrderedDict(
        client_index=element[training_loop.INDEX],
        client_state=collections.OrderedDict(total=total, participations=count),
      ),
    )

  @tff.tensorflow.computation(weights_type, data_type)
  def client_update_computation(weights, dataset):
    return client_update(weights, dataset.get_single_element())

  @tff.federated_computation
  def initialize():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize.type_signature.result,
    tff.FederatedType(weights_type, tff.CLIENTS),
    tff.FederatedType(data_type, tff.CLIENTS),
  )
  def next_fn(state, weights, clients):
    result, examples, kept = tff.federated_map(
      client_update_computation, (weights, clients)
    )
    measurements = collections.OrderedDict(
      [
        ('num_examples', tff.federated_sum(examples)),
        (collecting.CLIENT_STATES, collecting.collect(kept)),
      ]
    )
    return tff.templates.MeasuredProcessOutput(
      state, result, tff.federated_zip(measurements)
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)


SCHEDULE = training_loop.Schedule(
  epochs=1, batch_size=5, shuffle=config.Shuffle.ON
)
