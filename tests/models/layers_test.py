"""Which layers a flag means, and the model that is split there."""

import numpy as np
import pytest
import tensorflow as tf

from tests import small_models
from tff_pipeline import validate
from tff_pipeline.models import layers
from tff_pipeline.models import split as splits

_keras = tf.keras.layers


def _named() -> tf.keras.Model:
  inner = tf.keras.Sequential(
    [tf.keras.Input((6,)), _keras.Dense(3, name='inner', use_bias=False)]
  )
  raw = tf.keras.Input((6,))
  hidden = _keras.Dense(5, name='body')(inner(raw))
  return tf.keras.Model(raw, _keras.Dense(4)(tf.nn.relu(hidden)))


def _choose(wanted, model):
  found = layers.choose(layers.of(model), wanted)
  return sorted(number for layer in found for number in layer.weights)


@pytest.mark.parametrize(
  'wanted, weights',
  [
    ('0', []),
    ('1', [3, 4]),
    ('2', [1, 2, 3, 4]),
    ('body', [1, 2]),
    ('inner, body', [0, 1, 2]),
  ],
)
def test_layers_by_number_and_by_name(wanted, weights):
  assert _choose(wanted, _named()) == weights


@pytest.mark.parametrize(
  'wanted, message',
  [
    ('3', 'expected a number below 3; the layers with weights are: inner, '),
    ('-1', 'found -1'),
    ('head', 'body, .without a name of its own., found head'),
    ('dense', 'found dense'),
    ('body,', 'expected a number or names'),
  ],
)
def test_layers_that_the_model_does_not_have_are_refused(wanted, message):
  model = _named()
  with pytest.raises(
    validate.UsageError, match=f'^--algorithm.local_layers: .*{message}'
  ):
    _choose(wanted, model)


def test_something_must_be_shared():
  model = tf.keras.Sequential(
    [tf.keras.Input((6,)), _keras.Dense(5, name='all')]
  )
  with pytest.raises(validate.UsageError, match='at least one layer that is'):
    _choose('all', model)


def test_a_recurrent_layer_is_one():
  assert [len(layer.weights) for layer in layers.of(small_models.lstm())] == [
    1,
    3,
    2,
  ]


def test_split_model_is_the_whole_one_with_its_weights_divided():
  whole = small_models.build(small_models.dense)
  split = splits.build(whole, '1')
  shared, local = split.initial_weights
  assert [w.shape for w in shared] == [(6, 5), (5,)]
  assert [w.shape for w in local] == [(5, 4), (4,)]
  swapped = split.swapped()
  assert [w.shape for w in swapped.initial_weights[0]] == [(5, 4), (4,)]
  x, _ = small_models.examples(whole, 7)

  def predict(model):
    return small_models.evaluate(
      lambda: model.predict_on_batch(
        tf.nest.map_structure(tf.constant, tuple(model.initial_weights)),
        tf.constant(x),
        training=False,
      )
    )

  for model in (split, swapped):
    np.testing.assert_array_equal(predict(model), predict(whole))
