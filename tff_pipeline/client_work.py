"""The dense training loop, and the `ClientWorkProcess`es built on it.

TFF's stock client loop reduces a `tf.data` pipeline, which costs more than the
training that it wraps. Here the data of a client is a sequence of *one*
element, holding all its tensors and a shuffle key, and the loop slices
mini-batches from them. The arithmetic is that of TFF's
`build_functional_model_delta_client_work`.
"""

import collections
from collections.abc import Callable
import dataclasses
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config

KEY = 'key'
NOISE_KEY = 'noise_key'
KEY_SPEC = tf.TensorSpec([2], tf.int64)

Metrics = collections.OrderedDict[str, Any]

# (weights, x, y) -> (gradients, batch loss, batch output)
GradientFn = Callable[[Any, Any, Any], tuple[Any, tf.Tensor, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """How a client walks over its examples.

  Attributes:
    epochs: Passes over the examples.
    batch_size: Examples in a step; the last batch of an epoch may be smaller.
    shuffle: Whether each epoch has a fresh order, drawn from the client's key.
  """

  epochs: int
  batch_size: int
  shuffle: config.Shuffle


def element_spec(
  model: tff.learning.models.FunctionalModel,
) -> collections.OrderedDict[str, Any]:
  """Returns the spec of a client's one element: x, y and the shuffle key."""
  spec = collections.OrderedDict(model.input_spec)
  spec[KEY] = KEY_SPEC
  return spec


def batch_gradient(
  model: tff.learning.models.FunctionalModel,
) -> GradientFn:
  """Returns the gradient of the batch's mean loss."""

  def gradient(weights, x, y):
    trainable, _ = weights
    with tf.GradientTape() as tape:
      tape.watch(trainable)
      output = model.predict_on_batch(weights, x, training=True)
      loss = model.loss(output=output, label=y)
    return tape.gradient(loss, trainable), loss, output

  return gradient


def train(
  model: tff.learning.models.FunctionalModel,
  gradient_fn: GradientFn,
  *,
  optimizer: tff.learning.optimizers.Optimizer,
  schedule: Schedule,
  weights: tuple[Any, Any],
  data: collections.OrderedDict[str, Any],
) -> tuple[Any, collections.OrderedDict[str, Any]]:
  """Trains on one client's examples; runs inside a graph.

  Args:
    model: The model.
    gradient_fn: What a step descends along.
    optimizer: The client's optimizer; starts afresh.
    schedule: Epochs and batches.
    weights: (trainable, non-trainable) to start from.
    data: x and y of shape [n, ...], and the key, int64[2].

  Returns:
    The trainable weights after training, and the unfinalized train metrics:
    sums of the loss over examples as seen before each step, of examples and
    of batches, and the model's own metrics.
  """
  trainable, non_trainable = weights
  num_examples = tf.shape(tf.nest.flatten(data['x'])[0])[0]
  state = (
    tuple(trainable),
    optimizer.initialize(
      tuple(tf.TensorSpec(w.shape, w.dtype) for w in trainable)
    ),
    no_metrics(model),
  )

  def step(state, rows):
    trainable, optimizer_state, metrics = state
    x, y = tf.nest.map_structure(
      lambda t: tf.gather(t, rows), (data['x'], data['y'])
    )
    gradients, loss, output = gradient_fn((trainable, non_trainable), x, y)
    optimizer_state, trainable = optimizer.next(
      optimizer_state, trainable, gradients
    )
    metrics = add_batch(
      model, metrics, loss=loss, output=output, y=y, count=tf.size(rows)
    )
    return tuple(trainable), optimizer_state, metrics

  def epoch(number, state):
    order = epoch_order(num_examples, data[KEY], number, schedule.shuffle)
    _, state = tf.while_loop(
      lambda start, _: start < num_examples,
      lambda start, s: (
        start + schedule.batch_size,
        step(s, order[start : start + schedule.batch_size]),
      ),
      (tf.constant(0), state),
      parallel_iterations=1,
    )
    return number + 1, state

  _, (trainable, _, metrics) = tf.while_loop(
    lambda number, _: number < schedule.epochs,
    epoch,
    (tf.constant(0), state),
    parallel_iterations=1,
  )
  return trainable, metrics


def epoch_order(
  num_examples: tf.Tensor,
  key: tf.Tensor,
  epoch: tf.Tensor,
  shuffle: config.Shuffle,
) -> tf.Tensor:
  """Returns the rows in the order of this epoch; int32[num_examples]."""
  rows = tf.range(num_examples)
  if shuffle is config.Shuffle.OFF:
    return rows
  seed = tf.random.experimental.stateless_fold_in(key, tf.cast(epoch, tf.int64))
  return tf.random.experimental.stateless_shuffle(rows, seed)


def no_metrics(
  model: tff.learning.models.FunctionalModel,
) -> Metrics:
  """Returns the unfinalized metrics of no examples."""
  return collections.OrderedDict(
    loss_sum=tf.constant(0.0),
    num_examples=tf.constant(0, tf.int64),
    num_batches=tf.constant(0, tf.int64),
    rejected_updates=tf.constant(0, tf.int64),
    model=model.initialize_metrics_state(),
  )


def add_batch(
  model: tff.learning.models.FunctionalModel,
  metrics: Metrics,
  *,
  loss: tf.Tensor,
  output: Any,
  y: Any,
  count: tf.Tensor,
) -> Metrics:
  """Returns the unfinalized metrics with one more batch.

  Args:
    model: The model.
    metrics: What earlier batches gave.
    loss: Mean loss of the batch.
    output: The model's output for the batch.
    y: The labels of the batch.
    count: Number of examples in the batch; int32.
  """
  batch_output = tff.learning.models.BatchOutput(
    loss=loss, predictions=output, num_examples=count
  )
  return collections.OrderedDict(
    loss_sum=metrics['loss_sum'] + loss * tf.cast(count, loss.dtype),
    num_examples=metrics['num_examples'] + tf.cast(count, tf.int64),
    num_batches=metrics['num_batches'] + 1,
    rejected_updates=metrics['rejected_updates'],
    model=model.update_metrics_state(
      metrics['model'], labels=y, batch_output=batch_output
    ),
  )


def finalize_metrics(
  model: tff.learning.models.FunctionalModel,
) -> Callable[[Metrics], Metrics]:
  """Returns the function from summed client metrics to round metrics."""

  def finalize(sums):
    examples = tf.cast(sums['num_examples'], tf.float32)
    return collections.OrderedDict(
      loss=tf.math.divide_no_nan(sums['loss_sum'], examples),
      **model.finalize_metrics(sums['model']),
      num_examples=sums['num_examples'],
      num_batches=sums['num_batches'],
      rejected_updates=sums['rejected_updates'],
    )

  return finalize


def weights_spec(
  model: tff.learning.models.FunctionalModel,
) -> tff.learning.models.ModelWeights:
  """Returns the tensor specs of the model's weights."""
  specs = tf.nest.map_structure(
    lambda w: tf.TensorSpec(w.shape, w.dtype), tuple(model.initial_weights)
  )
  return tff.learning.models.ModelWeights(tuple(specs[0]), tuple(specs[1]))


def _reject_non_finite(update, metrics, no_metrics):
  """Returns the update, its weight's factor, and metrics that count it.

  A client whose update has an infinite or undefined entry sends zeros, and its
  train metrics are left out, as in TFF's stock client work.
  """
  finite = tf.reduce_all(
    [tf.reduce_all(tf.math.is_finite(t)) for t in tf.nest.flatten(update)]
  )
  update = tf.nest.map_structure(
    lambda t: tf.where(finite, t, tf.zeros_like(t)), update
  )
  metrics = tf.nest.map_structure(
    lambda m, zero: tf.where(finite, m, zero), metrics, no_metrics
  )
  metrics['rejected_updates'] = tf.cast(~finite, tf.int64)
  return update, tf.cast(finite, tf.float32), metrics


def build(
  model: tff.learning.models.FunctionalModel,
  gradient_fn: GradientFn,
  *,
  optimizer: tff.learning.optimizers.Optimizer,
  schedule: Schedule,
  weighting: config.Weighting,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns client work whose result is initial minus trained weights.

  Args:
    model: The model.
    gradient_fn: What a step descends along, such as `batch_gradient(model)`.
    optimizer: The client's optimizer; starts afresh each round.
    schedule: Epochs and batches.
    weighting: Weight of the update: 1, or the number of examples processed.

  Returns:
    A stateless process. The data of a client is a sequence of one element of
    `element_spec(model)`. Its measurements are train metrics, un-noised.
  """
  data_type = tff.SequenceType(
    tff.types.tensorflow_to_type(element_spec(model))
  )
  weights_type = tff.types.tensorflow_to_type(weights_spec(model))

  @tf.function
  def client_update(weights, data):
    start = (weights.trainable, weights.non_trainable)
    trained, metrics = train(
      model,
      gradient_fn,
      optimizer=optimizer,
      schedule=schedule,
      weights=start,
      data=data,
    )
    update = tf.nest.map_structure(tf.subtract, tuple(start[0]), trained)
    update, factor, metrics = _reject_non_finite(
      update, metrics, no_metrics(model)
    )
    weight = factor
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

  @tff.federated_computation
  def initialize():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    tff.FederatedType((), tff.SERVER),
    tff.FederatedType(weights_type, tff.CLIENTS),
    tff.FederatedType(data_type, tff.CLIENTS),
  )
  def next_fn(state, weights, client_data):
    result, metrics = tff.federated_map(
      client_update_computation, (weights, client_data)
    )
    aggregate = tff.learning.metrics.sum_then_finalize(finalize_metrics(model))
    measurements = tff.federated_zip(
      collections.OrderedDict(train=aggregate(metrics))
    )
    return tff.templates.MeasuredProcessOutput(state, result, measurements)

  return tff.learning.templates.ClientWorkProcess(initialize, next_fn)
