"""What happens to a batch before the model."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from tff_pipeline import validate
from tff_pipeline.models import functional
from tff_pipeline.models import objectives
from tff_pipeline.models import preprocessing

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
_SEEDS = [tf.constant([1, 2], tf.int64), tf.constant([1, 3], tf.int64)]


def _crop(seed):
  layer = preprocessing.CropAndFlip(24)
  return layer._random(tf.constant(_IMAGES), seed).numpy()


def _window(image, crop):
  """Returns (top, left, flipped) of a crop; fails if it is none."""
  (found,) = [
    (top, left, flipped)
    for top in range(9)
    for left in range(9)
    for flipped in (False, True)
    for part in [image[top : top + 24, left : left + 24]]
    if np.array_equal(part[:, ::-1] if flipped else part, crop)
  ]
  return found


def test_each_image_has_a_window_and_a_flip_of_its_own():
  windows = [
    _window(image, crop)
    for image, crop in zip(_IMAGES, _crop(_SEEDS[0]), strict=True)
  ]
  assert len(set(windows)) > 4


def test_windows_reach_every_place_evenly():
  many = np.repeat(_IMAGES[:1], 600, axis=0)
  layer = preprocessing.CropAndFlip(24)
  crops = layer._random(tf.constant(many), _SEEDS[0]).numpy()
  windows = collections.Counter(_window(_IMAGES[0], crop) for crop in crops)
  tops, lefts, flips = (
    collections.Counter(w[i] for w in windows.elements()) for i in range(3)
  )
  for counts, places in ((tops, 9), (lefts, 9), (flips, 2)):
    assert len(counts) == places
    expected = 600 / places
    assert all(abs(c - expected) < 5 * expected**0.5 for c in counts.values())


def test_the_seed_decides_the_crops():
  one, again, other = (_crop(_SEEDS[i]) for i in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  assert not np.array_equal(one, other)


def _cropped_model():
  def factory(shape):
    assert shape == (24, 24, 3)
    return tf.keras.Sequential(
      [
        tf.keras.Input(shape),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(5),
      ]
    )

  return preprocessing.wrap(
    'crop', factory, input_spec=tf.TensorSpec((None, 32, 32, 3), tf.uint8)
  )


def test_evaluation_takes_the_centre_and_standardizes(tmp_path):
  model = _cropped_model()()
  centre = tf.image.per_image_standardization(
    tf.image.resize_with_crop_or_pad(tf.cast(_IMAGES, tf.float32), 24, 24)
  )
  expected = model.layers[-1](centre)
  np.testing.assert_allclose(model(_IMAGES), expected, atol=1e-4)
  model.save(tmp_path / 'model', save_format='tf')
  loaded = tf.keras.models.load_model(tmp_path / 'model')
  np.testing.assert_allclose(loaded(_IMAGES), expected, atol=1e-4)


def _functional(factory, x_spec):
  objective = objectives.build('classification')
  return functional.build(
    functional.keras_model(factory, seed=0),
    loss=objective.loss_factory(),
    metric_factory=objective.metric_factory,
    input_spec=collections.OrderedDict(
      x=x_spec, y=tf.TensorSpec((None,), tf.int32)
    ),
  )


def test_training_crops_by_the_key_of_the_step():
  model = _functional(
    _cropped_model(), tf.TensorSpec((None, 32, 32, 3), tf.uint8)
  )

  def outputs(seed):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
      weights = tf.nest.map_structure(
        tf.constant, tuple(tuple(part) for part in model.initial_weights)
      )
      x = tf.constant(_IMAGES)
      key = tf.constant(seed, tf.int64)
      return session.run(
        (
          model.predict_on_batch(weights, x, training=key),
          model.predict_on_batch(weights, x, training=False),
        )
      )

  (one, centre), (again, _), (other, _) = map(outputs, ([1, 2], [1, 2], [1, 3]))
  np.testing.assert_array_equal(one, again)
  assert not np.allclose(one, other, atol=1e-3)
  assert not np.allclose(one, centre, atol=1e-3)


def test_bytes_are_scaled():
  model = preprocessing.wrap(
    'scale',
    lambda shape: tf.keras.Sequential(
      [tf.keras.Input(shape), tf.keras.layers.Flatten()]
    ),
    input_spec=tf.TensorSpec((None, 2, 2, 1), tf.uint8),
  )()
  x = np.array([0, 51, 102, 255], np.uint8).reshape(1, 2, 2, 1)
  assert model.inputs[0].dtype == tf.uint8
  np.testing.assert_allclose(model(x), [[0.0, 0.2, 0.4, 1.0]], atol=1e-6)


@pytest.mark.parametrize('dtype', [np.int16, np.int32])
def test_bag_of_words(dtype):
  ids = np.array([[1, 3, 3, 0], [0, 0, 0, 0], [4, 4, 4, 4]], dtype)
  bag = preprocessing.BagOfWords(4)(tf.constant(ids))
  third = 1 / 3
  expected = [[third, 0, 2 * third, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
  np.testing.assert_allclose(bag, expected, atol=1e-6)


def test_none_leaves_the_factory_alone():
  built = preprocessing.wrap(
    'none', lambda shape: shape, input_spec=tf.TensorSpec((None, 7), tf.float32)
  )
  assert built() == (7,)


class _OwnTraining(tf.keras.Sequential):
  def train_step(self, data):
    raise NotImplementedError(data)


@pytest.mark.parametrize('depth', [0, 1, 2])
def test_a_train_step_behind_preprocessing_is_refused(depth):
  """A DPSequential would train without any privacy, silently."""

  def factory(shape):
    model = _OwnTraining([tf.keras.Input(shape), tf.keras.layers.Flatten()])
    for _ in range(depth):
      model = tf.keras.Sequential([tf.keras.Input(shape), model])
    return model

  wrapped = preprocessing.wrap(
    'scale', factory, input_spec=tf.TensorSpec((None, 2, 2, 1), tf.uint8)
  )
  with pytest.raises(validate.UsageError, match='train_step of its own'):
    functional.keras_model(wrapped, seed=0)


def test_a_compiled_model_behind_preprocessing_is_refused():
  def factory(shape):
    model = tf.keras.Sequential(
      [tf.keras.Input(shape), tf.keras.layers.Flatten()]
    )
    model.compile('sgd', 'mse')
    return model

  wrapped = preprocessing.wrap(
    'scale', factory, input_spec=tf.TensorSpec((None, 2, 2, 1), tf.uint8)
  )
  with pytest.raises(validate.UsageError, match='uncompiled'):
    functional.keras_model(wrapped, seed=0)
