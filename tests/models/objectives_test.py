"""Losses and metrics against NumPy and Keras."""

import numpy as np
import pytest
import tensorflow as tf

from tff_pipeline.models import objectives

_RNG = np.random.default_rng(0)


def _text():
  y = _RNG.integers(1, 7, (4, 5)).astype(np.uint8)
  y[0, 2:], y[1], y[3, 4] = 0, 0, 0  # One row is all padding.
  return y, _RNG.normal(size=(4, 5, 7)).astype(np.float32)


def _measure(metric, *batches):
  for y, output in batches:
    metric.update_state(y, output)
  return float(metric.result())


def _log_softmax(logits):
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_text_loss_is_the_mean_over_real_tokens():
  y, logits = _text()
  chosen = np.take_along_axis(_log_softmax(logits), y[..., None].astype(int), 2)
  expected = -chosen[..., 0][y != 0].mean()
  loss = objectives.build('next_token').loss_factory()
  assert float(loss(y, logits)) == pytest.approx(expected, rel=1e-5)
  padded = np.concatenate([y, np.zeros_like(y)])
  more = np.concatenate([logits, logits])
  assert float(loss(padded, more)) == pytest.approx(expected, rel=1e-5)


def test_text_loss_of_padding_alone_is_zero_and_has_no_gradient():
  loss = objectives.build('next_token').loss_factory()
  logits = tf.constant(_text()[1])
  with tf.GradientTape() as tape:
    tape.watch(logits)
    value = loss(np.zeros((4, 5), np.uint8), logits)
  assert float(value) == 0.0
  assert np.all(tape.gradient(value, logits).numpy() == 0.0)


def test_text_loss_has_no_gradient_at_padding():
  y, logits = _text()
  logits = tf.constant(logits)
  with tf.GradientTape() as tape:
    tape.watch(logits)
    value = objectives.MaskedCrossentropy()(y, logits)
  moved = np.abs(tape.gradient(value, logits).numpy()).sum(-1) > 0
  np.testing.assert_array_equal(moved, y != 0)


@pytest.mark.parametrize('ignored', [(), (3,), (3, 5)])
def test_text_accuracy_leaves_out_padding_and_what_is_ignored(ignored):
  batches = [_text(), _text()]
  metrics = objectives.build('next_token', ignored_labels=ignored)
  ((name, metric),) = metrics.metric_factory().items()
  y, logits = (np.concatenate(part) for part in zip(*batches, strict=True))
  kept = ~np.isin(y, (0, *ignored))
  expected = (logits.argmax(-1) == y)[kept].mean()
  assert name == 'accuracy'
  assert _measure(metric, *batches) == pytest.approx(expected, rel=1e-6)


def _tags():
  y = (_RNG.random((6, 20)) < 0.2).astype(np.uint8)
  y[2] = 0
  return y, _RNG.normal(size=(6, 20)).astype(np.float32)


def test_recall_is_that_of_keras_on_probabilities():
  batches = [_tags(), _tags()]
  keras = tf.keras.metrics.Recall(top_k=5)
  expected = _measure(keras, *((y, tf.sigmoid(out)) for y, out in batches))
  ((name, metric),) = objectives.build('tags').metric_factory().items()
  assert name == 'recall_at_5'
  assert _measure(metric, *batches) == pytest.approx(expected, rel=1e-6)
  assert 0.0 < expected < 1.0


def test_tag_loss_is_the_mean_over_tags_and_examples():
  y, logits = _tags()
  p = 1 / (1 + np.exp(-logits))
  expected = -np.where(y, np.log(p), np.log(1 - p)).mean()
  loss = objectives.build('tags').loss_factory()
  assert float(loss(y, logits)) == pytest.approx(expected, rel=1e-5)


def test_reconstruction_compares_with_bytes():
  y = _RNG.integers(0, 256, (3, 8), dtype=np.uint8)
  output = _RNG.random((3, 8)).astype(np.float32)
  expected = np.square(output - y / 255).mean()
  objective = objectives.build('reconstruction')
  ((_, metric),) = objective.metric_factory().items()
  loss = objective.loss_factory()
  assert float(loss(y, output)) == pytest.approx(expected, rel=1e-5)
  rmse = _measure(metric, (y, output))
  assert rmse == pytest.approx(np.sqrt(expected), rel=1e-5)


@pytest.mark.parametrize(
  'name', ['classification', 'next_token', 'tags', 'reconstruction']
)
def test_losses_average_and_metrics_are_fresh(name):
  objective = objectives.build(name)
  assert objective.loss_factory().reduction == 'auto'
  (one,), (other,) = (objective.metric_factory().values() for _ in range(2))
  assert one is not other
