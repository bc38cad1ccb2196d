"""A function of one client -> the `ClientWorkProcess` that maps it."""

import collections
from collections.abc import Callable, Iterable, Mapping
import types
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop

ClientUpdate = Callable[
  ..., tuple[Any, train_metrics.Metrics, Mapping[str, Any]]
]
"""(weights, element, learning rate or `None`) -> (`ClientResult`, unfinalized
train metrics, what the client keeps); runs in a graph."""

Parts = Mapping[str, tuple[tf.TensorSpec, ...]]
"""Name of a part of a client's state -> its tensors."""

Collect = Callable[[tff.Value], Mapping[str, tff.Value]]
"""`state_row`s at the clients -> named rows at the server; federated. It is
`aggregation.collecting.client_states`, which this room may not import."""

NOTHING: Parts = types.MappingProxyType({})
"""The state of a client that keeps none."""

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


def parts_like(weights: Iterable[Any], names: Iterable[str]) -> Parts:
  """Returns parts of a client's state that are like some weights, each."""
  part = tuple(tf.TensorSpec(w.shape, w.dtype) for w in weights)
  return dict.fromkeys(names, part)


def data_type(
  model: tff.learning.models.FunctionalModel,
  extra_spec: Mapping[str, tf.TensorSpec],
  *,
  keeps: Parts = NOTHING,
) -> tff.Type:
  """Returns the type of a client's data: a sequence of one element.

  Args:
    model: The model.
    extra_spec: What the element holds besides x, y and the shuffle key.
    keeps: The client's state.
  """
  extra = dict(extra_spec)
  if keeps:
    extra[training_loop.INDEX] = training_loop.INDEX_SPEC
    extra[training_loop.STATE] = collections.OrderedDict(keeps)
  spec = training_loop.element_spec(model, extra)
  return tff.SequenceType(tff.types.tensorflow_to_type(spec))


def state_row(
  element: training_loop.Element, kept: Mapping[str, Any]
) -> collections.OrderedDict[str, Any]:
  """Returns what `engines.state_channel` wants back from a client."""
  return collections.OrderedDict(
    [
      (training_loop.INDEX, tf.identity(element[training_loop.INDEX])),
      (
        training_loop.STATE,
        collections.OrderedDict(
          (name, kept[name]) for name in element[training_loop.STATE]
        ),
      ),
    ]
  )


def measurements(
  model: tff.learning.models.FunctionalModel,
  metrics: tff.Value,
  collected: Mapping[str, tff.Value] = types.MappingProxyType({}),
) -> tff.Value:
  """Returns the finalized train metrics of a cohort; federated.

  Args:
    model: The model.
    metrics: The clients' unfinalized train metrics.
    collected: What the server gets beside them, by name.
  """
  aggregate = tff.learning.metrics.sum_then_finalize(
    train_metrics.finalizer(model)
  )
  return tff.federated_zip(
    collections.OrderedDict(train=aggregate(metrics), **collected)
  )


def build(
  model: tff.learning.models.FunctionalModel,
  client_update: ClientUpdate,
  *,
  extra_spec: Mapping[str, tf.TensorSpec],
  rate: Rate | None,
  keeps: Parts = NOTHING,
  collect: Collect | None = None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that maps `client_update` over a cohort.

  Args:
    model: The model.
    client_update: What one client does.
    extra_spec: What the element holds besides x, y and the shuffle key.
    rate: The clients' learning rate; unset means that it never changes.
    keeps: A client's state. What it is before the first participation is up to
      whoever keeps it: zeros, unless an `engines.client_store` is told others.
    collect: How the states get to where a simulation keeps them; must be given
      if there are any.

  Returns:
    A process whose measurements are train metrics, un-noised. It is stateless
    without `rate`; with it, its state is the number of rounds before.
  """
  weights, data = weights_type(model), data_type(model, extra_spec, keeps=keeps)
  update = tf.function(client_update, autograph=False)

  def outputs(weights, element, learning_rate):
    result, metrics, kept = update(weights, element, learning_rate)
    if not keeps:
      return result, metrics
    return result, metrics, state_row(element, kept)

  if rate is None:

    @tff.tensorflow.computation(weights, data)
    def work(weights, dataset):
      # Outside of any inner function: the in-process engine looks for this one
      # operation, and hands the tensors over without a dataset.
      return outputs(weights, dataset.get_single_element(), None)

    return _stateless(model, work, collect)

  @tff.tensorflow.computation(weights, data, np.float32)
  def work_at_rate(weights, dataset, learning_rate):
    return outputs(weights, dataset.get_single_element(), learning_rate)

  return _scheduled(model, work_at_rate, rate, collect)


def _stateless(
  model: tff.learning.models.FunctionalModel,
  work: tff.Computation,
  collect: Collect | None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that maps (weights, data) -> (result, metrics, ...)."""
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
    result, metrics, *rows = tff.federated_map(work, (weights, client_data))
    return tff.templates.MeasuredProcessOutput(
      state, result, measurements(model, metrics, *map(collect, rows))
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)


def _scheduled(
  model: tff.learning.models.FunctionalModel,
  work: tff.Computation,
  rate: Rate,
  collect: Collect | None,
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
    result, metrics, *rows = tff.federated_map(
      work, (weights, client_data, tff.federated_broadcast(current))
    )
    return tff.templates.MeasuredProcessOutput(
      rounds, result, measurements(model, metrics, *map(collect, rows))
    )

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
