"""Norms by layer equal those of the gradients, and odd models are left out."""

import numpy as np
import pytest
import tensorflow as tf

from tests import small_models
from tff_pipeline.client_work import dp_sgd
from tff_pipeline.client_work import example_norms

_layers = tf.keras.layers
_CLASSES = small_models.CLASSES


def _branched():
  x = tf.keras.Input((6,))
  one = _layers.Dense(5, activation='tanh')(x)
  other = _layers.Dense(5, use_bias=False)(x)
  return tf.keras.Model(x, _layers.Dense(_CLASSES)(_layers.Add()([one, other])))


_PICTURE = (6, 7, 2)
_COVERED = {
  'dense': small_models.dense,
  'conv': small_models.conv,
  'embedding': small_models.embedding,
  'strided, padded and dilated': lambda: tf.keras.Sequential(
    [
      tf.keras.Input(_PICTURE),
      _layers.Conv2D(3, (3, 2), strides=(2, 1), padding='same'),
      _layers.ReLU(),
      _layers.Conv2D(4, 2, dilation_rate=2, activation='relu'),
      _layers.Flatten(),
      _layers.Dense(_CLASSES),
    ]
  ),
  'dense over positions': lambda: tf.keras.Sequential(
    [
      tf.keras.Input((5,), dtype=tf.int32),
      _layers.Embedding(7, 3),
      _layers.Dense(4, activation='relu'),
      _layers.GlobalMaxPooling1D(),
      _layers.Dense(_CLASSES),
    ]
  ),
  'branches': _branched,
}


def _batch_mean(x):
  return x - tf.reduce_mean(x, axis=0, keepdims=True)


@tf.keras.saving.register_keras_serializable('example_norms_test')
def _batch_mean_removed(x):
  """An activation that a user registered, and may compute anything."""
  return _batch_mean(x)


class _Own(_layers.Dense):
  """A user's layer, which may compute anything."""


class _OwnRelu(_layers.ReLU):
  """Another one, without weights."""


_LEFT_OUT = {
  'mixes examples': lambda: tf.keras.Sequential(
    [
      tf.keras.Input((6,)),
      _layers.Lambda(_batch_mean),
      _layers.Dense(_CLASSES),
    ]
  ),
  'softmax over examples': lambda: tf.keras.Sequential(
    [tf.keras.Input((6,)), _layers.Softmax(axis=0), _layers.Dense(_CLASSES)]
  ),
  'softmax over examples, counted from the end': lambda: tf.keras.Sequential(
    [tf.keras.Input((6,)), _layers.Softmax(axis=-2), _layers.Dense(_CLASSES)]
  ),
  'own activation': lambda: tf.keras.Sequential(
    [
      tf.keras.Input((6,)),
      _layers.Dense(5, activation=_batch_mean_removed),
      _layers.Dense(_CLASSES),
    ]
  ),
  'own activation as a layer': lambda: tf.keras.Sequential(
    [
      tf.keras.Input((6,)),
      _layers.Activation(_batch_mean_removed),
      _layers.Dense(_CLASSES),
    ]
  ),
  'own layer': lambda: tf.keras.Sequential(
    [tf.keras.Input((6,)), _Own(_CLASSES)]
  ),
  'own layer without weights': lambda: tf.keras.Sequential(
    [tf.keras.Input((6,)), _OwnRelu(), _layers.Dense(_CLASSES)]
  ),
  'normalizes': lambda: tf.keras.Sequential(
    [
      tf.keras.Input((6,)),
      _layers.LayerNormalization(),
      _layers.Dense(_CLASSES),
    ]
  ),
  'regularized': lambda: tf.keras.Sequential(
    [tf.keras.Input((6,)), _layers.Dense(_CLASSES, kernel_regularizer='l2')]
  ),
  'groups': lambda: tf.keras.Sequential(
    [
      tf.keras.Input(_PICTURE),
      _layers.Conv2D(4, 2, groups=2),
      _layers.Flatten(),
      _layers.Dense(_CLASSES),
    ]
  ),
}


def _examples(model, count):
  spec = model.input_spec['x']
  rng = np.random.default_rng(5)
  if spec.dtype == tf.int32:
    # Few words, so that most are looked up more than once.
    x = rng.integers(0, 3, (count, *spec.shape[1:])).astype(np.int32)
  else:
    x = rng.normal(size=(count, *spec.shape[1:])).astype(np.float32)
  return x, rng.integers(0, _CLASSES, count).astype(np.int32)


def _both_norms(model, x, y):
  """Returns the norms by layer, and those of each example's gradients."""
  with tf.Graph().as_default():
    trainable = tuple(map(tf.constant, model.initial_weights[0]))
    seed = tf.zeros([2], tf.int64)
    with tf.GradientTape() as tape:
      tape.watch(trainable)
      output, record = example_norms.record(
        model, (trainable, ()), tf.constant(x), seed=seed
      )
      losses = dp_sgd._example_losses(model, output, tf.constant(y))
    assert record.covers(len(trainable))
    by_layer = record.norms(tape, losses)
    each = [
      dp_sgd._example_gradients(
        model,
        (trainable, ()),
        tf.constant(x[i]),
        tf.constant(y[i]),
        seed,
      )[1]
      for i in range(len(y))
    ]
    with tf.compat.v1.Session() as session:
      return session.run((by_layer, each))


@pytest.mark.parametrize('name', _COVERED)
def test_norms_are_those_of_the_gradients(name):
  model = small_models.build(_COVERED[name])
  x, y = _examples(model, 5)
  by_layer, each = _both_norms(model, x, y)
  assert np.ptp(each) > 0.01
  np.testing.assert_allclose(by_layer, each, rtol=1e-5)


@pytest.mark.parametrize('name', _LEFT_OUT)
def test_what_is_not_known_to_treat_each_example_alone_is_left_out(name):
  model = small_models.build(_LEFT_OUT[name])
  assert dp_sgd._clipped_sum(model) is dp_sgd._vectorized_sum


def test_no_norm_is_too_small_where_rows_cancel():
  """The sum over pairs of rows would find half of it, or nothing."""
  layer = _layers.Conv2D(1, 1)
  layer.build((None, 1, 200, 1))
  x = np.where(np.arange(200) % 2, 1.0, -1.0).reshape(1, 1, 200, 1) * 3e3
  x[0, 0, 0, 0] += 1.0
  x = tf.constant(x, tf.float32)
  d = tf.ones([1, 1, 200, 1])
  squared = example_norms._conv_2d(layer, x, d).numpy()[0]
  assert squared == pytest.approx(1.0 + 200.0**2, rel=1e-5)
