import collections
import random

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tff_pipeline import validate
from tff_pipeline.models import functional

_layers = tf.keras.layers
_FACTORIES = (
  small_models.dense,
  small_models.conv,
  small_models.embedding,
  small_models.lstm,
  small_models.dropout,
)


def _predict(model, x, *, training, weights=None):
  def outputs():
    values = tuple(map(tf.constant, weights or model.initial_weights[0]))
    seed = training
    if not isinstance(training, bool):
      seed = tf.constant(training, tf.int64)
    return model.predict_on_batch((values, ()), tf.constant(x), training=seed)

  return small_models.evaluate(outputs)


def _seeded(model, x):
  """Returns the function from a seed to the output for one batch."""
  graph = tf.Graph()
  with graph.as_default():
    seed = tf.compat.v1.placeholder(tf.int64, [2])
    weights = tuple(map(tf.constant, model.initial_weights[0]))
    output = model.predict_on_batch((weights, ()), x, training=seed)
  session = tf.compat.v1.Session(graph=graph)
  return lambda value: session.run(output, {seed: value})


@pytest.mark.parametrize('factory', _FACTORIES)
def test_equals_the_keras_model(factory):
  model = small_models.build(factory, 3)
  x, y = small_models.examples(model, 5)
  # Built last: models in graphs put older ones out of order.
  keras_model = functional.keras_model(factory, seed=3)
  expected = keras_model(x, training=False).numpy()
  found = _predict(model, x, training=False)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  for one, other in zip(
    model.initial_weights[0], keras_model.trainable_variables, strict=True
  ):
    np.testing.assert_array_equal(one, other)
  loss = small_models.evaluate(
    lambda: model.loss(output=tf.constant(found), label=tf.constant(y))
  )
  assert loss == pytest.approx(float(small_models.loss()(y, expected)))


@pytest.mark.parametrize('factory', _FACTORIES)
def test_seed_decides_the_initial_weights(factory):
  weights = {
    (seed, repeat): functional.keras_model(factory, seed=seed).get_weights()
    for seed in (0, 1)
    for repeat in (0, 1)
  }
  for seed in (0, 1):
    for one, other in zip(weights[seed, 0], weights[seed, 1], strict=True):
      np.testing.assert_array_equal(one, other)
  assert not np.array_equal(weights[0, 0][0], weights[1, 0][0])


def test_building_a_model_leaves_the_global_generators_alone():
  python, numpy = random.getstate(), np.random.get_state()
  tf.random.set_seed(4)
  expected = tf.random.uniform([3]).numpy()
  tf.random.set_seed(4)
  functional.keras_model(small_models.dense, seed=1)
  np.testing.assert_array_equal(tf.random.uniform([3]), expected)
  assert random.getstate() == python
  np.testing.assert_array_equal(np.random.get_state()[1], numpy[1])


def _random_layers():
  return tf.keras.Sequential(
    [
      tf.keras.Input((_WORDS,), dtype=tf.int32),
      _layers.Embedding(7, 8),
      _layers.SpatialDropout1D(0.5),
      _layers.LSTM(6, dropout=0.5, recurrent_dropout=0.5),
      tf.keras.Sequential([_layers.GaussianNoise(0.1), _layers.Dense(8)]),
      _layers.AlphaDropout(0.3),
      _layers.Dense(small_models.CLASSES),
    ]
  )


_WORDS = 5


@pytest.mark.parametrize(
  'factory',
  [
    small_models.dropout,
    pytest.param(_random_layers, marks=pytest.mark.slow),
  ],
  ids=['dropout', 'many'],
)
def test_seed_decides_what_random_layers_draw(factory):
  model = small_models.build(factory)
  x, _ = small_models.examples(model, 6)
  output = _seeded(model, x)
  first = output((1, 2))
  tf.random.set_seed(8)
  np.testing.assert_array_equal(first, output((1, 2)))
  np.testing.assert_array_equal(first, _seeded(model, x)((1, 2)))
  for other in ((1, 3), (2, 1)):
    assert not np.allclose(first, output(other))
  assert not np.allclose(first, _predict(model, x, training=False))


def test_layers_do_not_share_what_they_draw():
  def factory():
    return tf.keras.Sequential(
      [
        tf.keras.Input((1000,)),
        _layers.Dropout(0.5),
        _layers.Dropout(0.5),
        _layers.Rescaling(1.0),
        # A weight, without which TFF knows no model.
        _layers.Dense(1000, kernel_initializer='identity'),
      ]
    )

  model = small_models.build(factory)
  kept = _predict(model, np.ones((1, 1000), np.float32), training=(1, 2)) != 0
  # One mask twice would keep a half.
  assert 180 < kept.sum() < 320


def test_training_without_a_seed_is_refused_where_it_matters():
  model = small_models.build(small_models.dropout)
  x, _ = small_models.examples(model, 2)
  with pytest.raises(Exception, match='without dropout for this algorithm'):
    _predict(model, x, training=True)
  calm = small_models.build(small_models.lstm)
  x, _ = small_models.examples(calm, 2)
  np.testing.assert_allclose(
    _predict(calm, x, training=True),
    _predict(calm, x, training=(1, 2)),
    atol=1e-7,
  )


def _sequential(*layers):
  return lambda: tf.keras.Sequential([tf.keras.Input((6,)), *layers])


def _compiled():
  model = small_models.dense()
  model.compile(optimizer='sgd', loss='mse')
  return model


class _OwnStep(tf.keras.Sequential):
  def train_step(self, data):
    return super().train_step(data)


@pytest.mark.parametrize(
  'factory, problem',
  [
    (lambda: 'a model', 'returns a tf.keras.Model'),
    (_compiled, 'uncompiled'),
    (lambda: _OwnStep(small_models.dense().layers), 'train_step'),
    (_sequential(_layers.BatchNormalization()), 'batch normalization'),
    (
      _sequential(
        tf.keras.Sequential([_layers.Dense(3), _layers.BatchNormalization()])
      ),
      'batch normalization',
    ),
    (
      _sequential(_layers.Dense(3, trainable=False), _layers.Dense(2)),
      'trainable weights only',
    ),
  ],
)
def test_refuses_what_cannot_be_trained(factory, problem):
  with pytest.raises(validate.UsageError, match=problem) as caught:
    functional.keras_model(factory, seed=0)
  assert '--task.model' in str(caught.value)


def _shared():
  x = tf.keras.Input((6,))
  layer = _layers.Dense(6)
  return tf.keras.Model(x, layer(_layers.ReLU()(layer(x))))


def test_layer_that_is_used_twice_keeps_its_one_weight():
  model = small_models.build(_shared)
  assert len(model.initial_weights[0]) == 2
  x, _ = small_models.examples(model, 3)
  expected = functional.keras_model(_shared, seed=0)(x)
  np.testing.assert_allclose(
    _predict(model, x, training=False), expected, atol=1e-6
  )


class _OwnNoise(_layers.Layer):
  def call(self, inputs):
    return inputs + tf.random.normal(tf.shape(inputs))


class _SeededNoise(_layers.Layer):
  def call(self, inputs):
    return inputs + tf.random.stateless_normal(tf.shape(inputs), [1, 2])


def test_refuses_random_numbers_that_no_seed_decides():
  with pytest.raises(validate.UsageError, match='RandomStandardNormal'):
    small_models.build(_sequential(_OwnNoise(), _layers.Dense(4)))
  small_models.build(_sequential(_SeededNoise(), _layers.Dense(4)))


@pytest.mark.parametrize('reduction', ['none', 'sum'])
def test_refuses_a_loss_that_does_not_average(reduction):
  model = functional.keras_model(small_models.dense, seed=0)
  with pytest.raises(validate.UsageError, match='averages over the batch'):
    functional.build(
      model,
      loss=tf.keras.losses.SparseCategoricalCrossentropy(reduction=reduction),
      metric_factory=collections.OrderedDict,
      input_spec=collections.OrderedDict(
        x=tf.TensorSpec((None, 6)), y=tf.TensorSpec((None,), tf.int32)
      ),
    )


def test_is_tffs_functional_model():
  model = small_models.build(small_models.dense)
  assert isinstance(model, tff.learning.models.FunctionalModel)
