"""A function of one client -> the `ClientWorkProcess` that maps it."""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop

ClientUpdate = Callable[..., tuple[Any, train_metrics.Metrics]]
"""(weights, element, learning rate or `None`) -> (`ClientResult`, unfinalized
train metrics); runs in a graph."""

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
  model: tff.learning.models.FunctionalModel, metrics: tff.Value
) -> tff.Value:
  """Returns the finalized train metrics of a cohort; federated."""
  aggregate = tff.learning.metrics.sum_then_finalize(
    train_metrics.finalizer(model)
  )
  return tff.federated_zip(collections.OrderedDict(train=aggregate(metrics)))


def build(
  model: tff.learning.models.FunctionalModel,
  client_update: ClientUpdate,
  *,
  extra_spec: Mapping[str, tf.TensorSpec],
  rate: Rate | None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that maps `client_update` over a cohort.

  Args:
    model: The model.
    client_update: What one client does.
    extra_spec: What the element holds besides x, y and the shuffle key.
    rate: The clients' learning rate; unset means that it never changes.

  Returns:
    A process whose measurements are train metrics, un-noised. It is stateless
    without `rate`; with it, its state is the number of rounds before.
  """
  weights, data = weights_type(model), data_type(model, extra_spec)
  update = tf.function(client_update)
  if rate is None:

    @tff.tensorflow.computation(weights, data)
    def work(weights, dataset):
      # Outside of any inner function: the in-process engine looks for this one
      # operation, and hands the tensors over without a dataset.
      return update(weights, dataset.get_single_element(), None)

    return _process(model, work, rate=None)

  @tff.tensorflow.computation(weights, data, np.float32)
  def work_at_rate(weights, dataset, learning_rate):
    return update(weights, dataset.get_single_element(), learning_rate)

  return _process(model, work_at_rate, rate=rate)


def _process(
  model: tff.learning.models.FunctionalModel, work: Any, *, rate: Rate | None
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process of a computation on one client."""
  weights, data = work.type_signature.parameter[:2]

  @tff.tensorflow.computation
  def no_rounds():
    return () if rate is None else tf.constant(0, tf.int64)

  @tff.federated_computation
  def initialize():
    return tff.federated_eval(no_rounds, tff.SERVER)

  @tff.tensorflow.computation(no_rounds.type_signature.result)
  def count(rounds):
    return rounds + 1

  @tff.tensorflow.computation(no_rounds.type_signature.result)
  def rate_after(rounds):
    return rate(rounds + 1)

  @tff.federated_computation(
    initialize.type_signature.result,
    tff.FederatedType(weights, tff.CLIENTS),
    tff.FederatedType(data, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    arguments = [weights, client_data]
    if rate is not None:
      current = tff.federated_map(rate_after, state)
      arguments.append(tff.federated_broadcast(current))
      state = tff.federated_map(count, state)
    result, metrics = tff.federated_map(work, tuple(arguments))
    return tff.templates.MeasuredProcessOutput(
      state, result, measurements(model, metrics)
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
