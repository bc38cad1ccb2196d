"""Losses and metrics, by what is learned.

Losses average over a batch. In text, padding (label 0) counts neither in the
loss nor in the accuracy: a batch's loss is the mean over its real tokens. Keras
would carry that as a mask on the model's output, which a functional model
drops, so it is taken from the labels here.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import functools

import tensorflow as tf

PADDING = 0

Metrics = dict[str, tf.keras.metrics.Metric]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
  """How outputs are judged.

  Attributes:
    loss_factory: Builds the loss, averaged over a batch.
    metric_factory: Builds fresh Keras metrics by name.
  """

  loss_factory: Callable[[], tf.keras.losses.Loss]
  metric_factory: Callable[[], Metrics]


def build(name: str, *, ignored_labels: Sequence[int] = ()) -> Objective:
  """Returns an objective by name.

  - classification: one whole-number label an example; cross-entropy, accuracy.
  - next_token: a label per position, 0 for padding; cross-entropy over the
    others, accuracy over those that are not ignored either.
  - tags: a 0/1 row an example; binary cross-entropy per tag, recall at 5.
  - regression: a number an example, [n, 1]; squared error and its root.
  - reconstruction: bytes [n, d] to be given back in [0, 1]; squared error.

  Args:
    name: One of these.
    ignored_labels: For `next_token`: labels that the accuracy leaves out.
  """
  if name == 'next_token':
    return Objective(
      MaskedCrossentropy,
      functools.partial(
        _metrics, 'accuracy', lambda: MaskedAccuracy(tuple(ignored_labels))
      ),
    )
  loss_factory, metric_name, metric = {
    'classification': (
      functools.partial(
        tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True
      ),
      'accuracy',
      tf.keras.metrics.SparseCategoricalAccuracy,
    ),
    'tags': (
      functools.partial(tf.keras.losses.BinaryCrossentropy, from_logits=True),
      'recall_at_5',
      RecallAt5,
    ),
    'regression': (
      tf.keras.losses.MeanSquaredError,
      'root_mean_squared_error',
      tf.keras.metrics.RootMeanSquaredError,
    ),
    'reconstruction': (
      ByteSquaredError,
      'root_mean_squared_error',
      ByteRootMeanSquaredError,
    ),
  }[name]
  return Objective(
    loss_factory, functools.partial(_metrics, metric_name, metric)
  )


def _metrics(
  name: str, factory: Callable[[], tf.keras.metrics.Metric]
) -> Metrics:
  return collections.OrderedDict({name: factory()})


class MaskedCrossentropy(tf.keras.losses.Loss):
  """Cross-entropy of logits [n, t, classes], averaged over real tokens."""

  def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """Returns [n, t] terms whose mean is the mean over unmasked positions."""
    losses = tf.keras.losses.sparse_categorical_crossentropy(
      y_true, y_pred, from_logits=True
    )
    real = tf.cast(tf.not_equal(y_true, PADDING), losses.dtype)
    share = tf.math.divide_no_nan(
      tf.cast(tf.size(real), losses.dtype), tf.reduce_sum(real)
    )
    return losses * real * share


class MaskedAccuracy(tf.keras.metrics.SparseCategoricalAccuracy):
  """Accuracy over labels that are neither padding nor ignored."""

  def __init__(self, ignored_labels: tuple[int, ...] = ()):
    super().__init__(name='accuracy')
    self._left_out = (PADDING, *ignored_labels)

  def update_state(
    self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: None = None
  ) -> tf.Operation:
    """Adds a batch."""
    del sample_weight
    counts = tf.reduce_all(
      [tf.not_equal(y_true, label) for label in self._left_out], axis=0
    )
    return super().update_state(y_true, y_pred, sample_weight=counts)


class RecallAt5(tf.keras.metrics.Mean):
  """Share of all true tags that are among their example's five top logits."""

  def __init__(self) -> None:
    super().__init__(name='recall_at_5')

  def update_state(
    self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: None = None
  ) -> tf.Operation:
    """Adds a batch of 0/1 rows and logits, both [n, tags]."""
    del sample_weight
    top = tf.math.top_k(y_pred, k=min(5, y_pred.shape[-1])).indices
    weights = tf.cast(y_true, tf.float32)
    hits = tf.reduce_sum(tf.gather(weights, top, batch_dims=1), axis=-1)
    total = tf.reduce_sum(weights, axis=-1)
    return super().update_state(
      tf.math.divide_no_nan(hits, total), sample_weight=total
    )


def _from_bytes(y: tf.Tensor) -> tf.Tensor:
  return tf.cast(y, tf.float32) / 255.0


class ByteSquaredError(tf.keras.losses.Loss):
  """Mean squared error of outputs in [0, 1] against bytes."""

  def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """Returns an error per example."""
    return tf.reduce_mean(tf.square(y_pred - _from_bytes(y_true)), axis=-1)


class ByteRootMeanSquaredError(tf.keras.metrics.RootMeanSquaredError):
  """Root of the mean squared error of outputs in [0, 1] against bytes."""

  def update_state(
    self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: None = None
  ) -> tf.Operation:
    """Adds a batch."""
    return super().update_state(_from_bytes(y_true), y_pred, sample_weight)
