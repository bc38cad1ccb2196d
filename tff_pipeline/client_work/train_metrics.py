"""Loss, metrics and counts of the batches that a client has seen.

Unfinalized metrics are sums, so those of a cohort are added up and finalized
once. They leave the clients without noise.
"""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

Metrics = collections.OrderedDict[str, Any]

_BOOKKEEPING = ('num_examples', 'num_batches', 'rejected_updates')


def zero(
  model: tff.learning.models.FunctionalModel, *, counts: tuple[str, ...] = ()
) -> Metrics:
  """Returns the unfinalized metrics of no examples.

  Args:
    model: The model.
    counts: Names of further counts, for `add_counts`.
  """
  return collections.OrderedDict(
    loss_sum=tf.constant(0.0),
    **{name: tf.constant(0, tf.int64) for name in (*_BOOKKEEPING, *counts)},
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
    loss: Mean loss of the batch; of an empty one, where it is undefined, it
      counts as zero.
    output: The model's output for the batch.
    y: The labels of the batch.
    count: Number of examples in the batch; int32.
  """
  loss = tf.where(count > 0, loss, tf.zeros_like(loss))
  batch_output = tff.learning.models.BatchOutput(
    loss=loss, predictions=output, num_examples=count
  )
  added = metrics.copy()
  added['loss_sum'] += loss * tf.cast(count, loss.dtype)
  added['num_examples'] += tf.cast(count, tf.int64)
  added['num_batches'] += 1
  added['model'] = model.update_metrics_state(
    metrics['model'], labels=y, batch_output=batch_output
  )
  return added


def add_counts(metrics: Metrics, counts: Mapping[str, tf.Tensor]) -> Metrics:
  """Returns the metrics with integer scalars added to the counts so named."""
  added = metrics.copy()
  for name, count in counts.items():
    added[name] += tf.cast(count, tf.int64)
  return added


def finalizer(
  model: tff.learning.models.FunctionalModel,
) -> Callable[[Metrics], Metrics]:
  """Returns the function from summed metrics to loss, metrics and counts."""

  def finalize(sums):
    examples = tf.cast(sums['num_examples'], tf.float32)
    counts = {
      name: value
      for name, value in sums.items()
      if name not in ('loss_sum', 'model')
    }
    return collections.OrderedDict(
      loss=tf.math.divide_no_nan(sums['loss_sum'], examples),
      **model.finalize_metrics(sums['model']),
      **counts,
    )

  return finalize
