"""A function of one client -> the `ClientWorkProcess` that maps it."""

import collections
from collections.abc import Callable, Mapping
import types
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop

ClientUpdate = Callable[..., tuple[Any, ...]]
"""(weights, element, learning rate or `None`) -> (`ClientResult`, unfinalized
train metrics), and what the client keeps, if `measure_kept` is given; runs in a
graph."""

MeasureKept = Callable[[tff.Value], Mapping[str, tff.Value]]
"""What clients keep -> measurements; in a federated computation."""

Rate = Callable[[tf.Tensor], tf.Tensor]
"""Round, 1-based -> the clients' learning rate in it."""


def weights_type(model: tff.learning.models.FunctionalModel) -> tff.Type:
  """Returns the type of the model's weights."""
  specs = tf.nest.map_structure(
    lambda w: tf.TensorSpec(w.shape, w.dtype), tuple(model.initial_weights)
  )
  return tff.types.tensorflow_to_type(
    tff.learning.models.ModelWeights(tuple(specs[0]), tuple(specs[1]))
  )


def data_type(
  model: tff.learning.models.FunctionalModel,
  extra_spec: Mapping[str, tf.TensorSpec],
) -> tff.Type:
  """Returns the type of a client's data: a sequence of one element."""
  spec = training_loop.element_spec(model, extra_spec)
  return tff.SequenceType(tff.types.tensorflow_to_type(spec))


def measurements(
  model: tff.learning.models.FunctionalModel,
  metrics: tff.Value,
  further: Mapping[str, tff.Value] = types.MappingProxyType({}),
) -> tff.Value:
  """Returns the finalized train metrics of a cohort, and more; federated."""
  aggregate = tff.learning.metrics.sum_then_finalize(
    train_metrics.finalizer(model)
  )
  return tff.federated_zip(
    collections.OrderedDict(train=aggregate(metrics), **further)
  )


def build(
  model: tff.learning.models.FunctionalModel,
  client_update: ClientUpdate,
  *,
  extra_spec: Mapping[str, tf.TensorSpec],
  rate: Rate | None,
  measure_kept: MeasureKept | None = None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that maps `client_update` over a cohort.

  Args:
    model: The model.
    client_update: What one client does.
    extra_spec: What the element holds besides x, y and the shuffle key.
    rate: The clients' learning rate; unset means that it never changes.
    measure_kept: How what clients keep gets into the measurements; unset means
      that they keep nothing.

  Returns:
    A process whose measurements are train metrics, un-noised. It is stateless
    without `rate`; with it, its state is the number of rounds before.
  """
  weights, data = weights_type(model), data_type(model, extra_spec)
  update = tf.function(client_update, autograph=False)
  if rate is None:

    @tff.tensorflow.computation(weights, data)
    def work(weights, dataset):
      # Outside of any inner function: the in-process engine looks for this one
      # operation, and hands the tensors over without a dataset.
      return update(weights, dataset.get_single_element(), None)

    return _stateless(model, work, measure_kept)

  @tff.tensorflow.computation(weights, data, np.float32)
  def work_at_rate(weights, dataset, learning_rate):
    return update(weights, dataset.get_single_element(), learning_rate)

  return _scheduled(model, work_at_rate, rate, measure_kept)


def _stateless(
  model: tff.learning.models.FunctionalModel,
  work: tff.Computation,
  measure_kept: MeasureKept | None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that maps (weights, data) -> (result, metrics)."""
  weights, data = work.type_signature.parameter

  @tff.federated_computation
  def initialize():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize.type_signature.result,
    tff.FederatedType(weights, tff.CLIENTS),
    tff.FederatedType(data, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    result, metrics, *kept = tff.federated_map(work, (weights, client_data))
    further = measure_kept(*kept) if kept else {}
    return tff.templates.MeasuredProcessOutput(
      state, result, measurements(model, metrics, further)
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)


def _scheduled(
  model: tff.learning.models.FunctionalModel,
  work: tff.Computation,
  rate: Rate,
  measure_kept: MeasureKept | None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that also hands out the rate, and counts rounds."""
  weights, data, _ = work.type_signature.parameter

  @tff.tensorflow.computation(np.int64)
  def rate_and_count(rounds):
    return rate(rounds + 1), rounds + 1

  @tff.federated_computation
  def initialize():
    return tff.federated_value(np.int64(0), tff.SERVER)

  @tff.federated_computation(
    initialize.type_signature.result,
    tff.FederatedType(weights, tff.CLIENTS),
    tff.FederatedType(data, tff.CLIENTS),
  )
  def next_fn(rounds, weights, client_data):
    current, rounds = tff.federated_map(rate_and_count, rounds)
    result, metrics, *kept = tff.federated_map(
      work, (weights, client_data, tff.federated_broadcast(current))
    )
    further = measure_kept(*kept) if kept else {}
    return tff.templates.MeasuredProcessOutput(
      rounds, result, measurements(model, metrics, further)
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
