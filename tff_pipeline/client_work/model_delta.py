"""Client work whose result is the change of the model's weights."""

import collections
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop


def build(
  model: tff.learning.models.FunctionalModel,
  gradient: training_loop.GradientFn,
  *,
  optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  weighting: config.Weighting,
  release: protections.Release,
  extra_spec: Mapping[str, tf.TensorSpec],
) -> tff.learning.templates.ClientWorkProcess:
  """Returns client work whose result is initial minus trained weights.

  An update whose norm is not finite becomes zero as a whole, with weight zero
  and its train metrics left out, before `release` sees it.

  Args:
    model: The model.
    gradient: What a step descends along.
    optimizer: The client's optimizer; starts afresh each round.
    schedule: Epochs and batches.
    weighting: Weight of the update: 1, or the number of examples processed.
    release: What happens to the update before it leaves the client.
    extra_spec: What the element holds besides x, y and the shuffle key.

  Returns:
    A stateless process. The data of a client is a sequence of one element. Its
    measurements are train metrics, un-noised.
  """
  element_spec = training_loop.element_spec(model, extra_spec)
  data_type = tff.SequenceType(tff.types.tensorflow_to_type(element_spec))
  weights_type = tff.types.tensorflow_to_type(_weights_spec(model))
  counts = (*gradient.counts, *release.counts)

  @tf.function(autograph=False)
  def client_update(weights, element):
    start = (tuple(weights.trainable), weights.non_trainable)
    trained, metrics = training_loop.train(
      model,
      gradient,
      optimizer=optimizer,
      schedule=schedule,
      weights=start,
      element=element,
    )
    update = tf.nest.map_structure(tf.subtract, start[0], trained)
    update, _, finite = keyed_noise.zero_if_non_finite(update)
    nothing = train_metrics.zero(model, counts=counts)
    metrics = tf.nest.map_structure(
      lambda m, zero: tf.where(finite, m, zero),
      nothing | metrics,
      nothing,
    )
    metrics['rejected_updates'] = tf.cast(~finite, tf.int64)
    update, released_counts = release.call(update, element)
    metrics = train_metrics.add_counts(metrics, released_counts)
    weight = tf.cast(finite, tf.float32)
    if weighting is config.Weighting.NUM_EXAMPLES:
      weight = tf.cast(metrics['num_examples'], tf.float32)
    return (
      tff.learning.templates.ClientResult(update=update, update_weight=weight),
      metrics,
    )

  @tff.tensorflow.computation(weights_type, data_type)
  def client_update_computation(weights, dataset):
    # Outside of any inner function: the in-process engine looks for this one
    # operation, and hands the tensors over without a dataset.
    return client_update(weights, dataset.get_single_element())

  return _stateless(
    client_update_computation, weights_type, data_type, model=model
  )


def _weights_spec(
  model: tff.learning.models.FunctionalModel,
) -> tff.learning.models.ModelWeights:
  specs = tf.nest.map_structure(
    lambda w: tf.TensorSpec(w.shape, w.dtype), tuple(model.initial_weights)
  )
  return tff.learning.models.ModelWeights(tuple(specs[0]), tuple(specs[1]))


def _stateless(
  client_update: Any,
  weights_type: tff.Type,
  data_type: tff.Type,
  *,
  model: tff.learning.models.FunctionalModel,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns the process that maps `client_update` over a cohort."""

  @tff.federated_computation
  def initialize():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    tff.FederatedType((), tff.SERVER),
    tff.FederatedType(weights_type, tff.CLIENTS),
    tff.FederatedType(data_type, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    result, metrics = tff.federated_map(client_update, (weights, client_data))
    aggregate = tff.learning.metrics.sum_then_finalize(
      train_metrics.finalizer(model)
    )
    measurements = tff.federated_zip(
      collections.OrderedDict(train=aggregate(metrics))
    )
    return tff.templates.MeasuredProcessOutput(state, result, measurements)

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
