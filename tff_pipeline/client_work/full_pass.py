"""One walk over all examples of a client at fixed weights."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop

Weights = tuple[Any, Any]


def gradient(
  model: tff.learning.models.FunctionalModel,
  *,
  batch_size: int,
  weights: Weights,
  element: training_loop.Element,
) -> tuple[tuple[tf.Tensor, ...], train_metrics.Metrics]:
  """Returns the gradient of the mean loss over all examples; runs in a graph.

  Args:
    model: The model.
    batch_size: Examples held at a time; decides nothing but the order of sums.
    weights: (trainable, non-trainable).
    element: The client's element.

  Returns:
    The gradient, zero for no examples, and the unfinalized train metrics.
  """
  batch_gradient = training_loop.batch_gradient(model)
  trainable = tuple(weights[0])

  def add_batch(total, x, y, step, count):
    found = batch_gradient.call((trainable, weights[1]), x, y, step)
    sums, metrics = total
    sums = tuple(
      s + tf.cast(count, s.dtype) * tf.convert_to_tensor(g)
      for s, g in zip(sums, found.value, strict=True)
    )
    metrics = train_metrics.add_batch(
      model, metrics, loss=found.loss, output=found.output, y=y, count=count
    )
    return sums, metrics

  sums, metrics = _fold(
    add_batch,
    (tuple(map(tf.zeros_like, trainable)), train_metrics.zero(model)),
    batch_size=batch_size,
    start=trainable,
    element=element,
  )
  examples = metrics['num_examples']
  mean = tuple(
    tf.math.divide_no_nan(s, tf.cast(examples, s.dtype)) for s in sums
  )
  return mean, metrics


def loss(
  model: tff.learning.models.FunctionalModel,
  *,
  batch_size: int,
  weights: Weights,
  element: training_loop.Element,
) -> tf.Tensor:
  """Returns the mean loss over all examples, without dropout.

  Args: as in `gradient`.
  """

  def add_batch(total, x, y, step, count):
    del step
    output = model.predict_on_batch(weights, x, training=False)
    batch_loss = model.loss(output=output, label=y)
    return total + tf.cast(count, batch_loss.dtype) * batch_loss

  total = _fold(
    add_batch,
    tf.constant(0.0),
    batch_size=batch_size,
    start=tuple(weights[0]),
    element=element,
  )
  return tf.math.divide_no_nan(
    total, tf.cast(training_loop.size(element), total.dtype)
  )


def _fold(
  add_batch: Callable[..., Any],
  total: Any,
  *,
  batch_size: int,
  start: tuple[tf.Tensor, ...],
  element: training_loop.Element,
) -> Any:
  """Folds (total, x, y, step, count) over batches, in the order of rows."""
  size = training_loop.size(element)

  def take(first, number, total):
    last = tf.minimum(first + batch_size, size)
    x, y = tf.nest.map_structure(
      lambda t: t[first:last], (element['x'], element['y'])
    )
    step = training_loop.Step(
      number=number,
      seed=training_loop.step_seed(element[training_loop.KEY], number),
      batch_size=batch_size,
      start=start,
      element=element,
    )
    return last, number + 1, add_batch(total, x, y, step, last - first)

  _, _, total = tf.while_loop(
    lambda first, *_: first < size,
    take,
    (tf.constant(0), tf.constant(0, tf.int64), total),
    parallel_iterations=1,
  )
  return total
