"""Principal components of images, held to their definition."""

import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import projection


def _loaded(images):
  labels = np.zeros(len(images), np.int32)
  return data_set.DataSet(
    train=client_data.Examples(images, labels),
    test=client_data.Examples(images[:3], labels[:3]),
    num_classes=2,
    preprocessing='scale',
  )


@pytest.fixture(name='images', scope='module')
def fixture_images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (200, 4, 3, 1), dtype=np.uint8)


def test_keeps_the_directions_in_which_unit_images_vary_most(images):
  pixels = images.reshape(200, -1) / 255
  unit = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
  _, _, rows = np.linalg.svd(unit, full_matrices=False)
  found = projection.principal_components(_loaded(images), 5)
  assert found.train.x.shape == (200, 5) and found.train.x.dtype == np.float32
  # A direction is known up to its sign.
  np.testing.assert_allclose(
    np.abs(found.train.x), np.abs(pixels @ rows[:5].T), rtol=1e-4, atol=1e-5
  )
  # A matrix product of few rows may be rounded otherwise.
  np.testing.assert_allclose(found.test.x, found.train.x[:3], atol=1e-6)


def test_all_components_keep_all_distances(images):
  found = projection.principal_components(_loaded(images), 12).train.x
  pixels = images.reshape(200, -1) / 255
  np.testing.assert_allclose(
    np.linalg.norm(found[0] - found[1:], axis=1),
    np.linalg.norm(pixels[0] - pixels[1:], axis=1),
    rtol=1e-5,
  )


def test_says_that_it_is_not_covered_and_that_no_bytes_are_left(images):
  found = projection.principal_components(_loaded(images), 2)
  assert found.uncovered == (projection.UNCOVERED,)
  assert found.preprocessing == 'none'


def test_more_components_than_pixels_are_refused(images):
  with pytest.raises(validate.UsageError, match='at most 12, the pixels'):
    projection.principal_components(_loaded(images), 13)


def test_a_black_image_has_no_direction():
  images = np.zeros((5, 2, 2, 1), np.uint8)
  images[1:, 0] = 9
  found = projection.principal_components(_loaded(images), 1)
  assert np.all(np.isfinite(found.train.x)) and found.train.x[0] == 0


def _task(**leaves):
  return config.Task(
    name='mnist', source='stand_in', partition='iid', clients=3, **leaves
  )


def test_a_task_is_projected():
  task = tasks.build(_task(model='wide_mlp', components=7), seed=0)
  assert task.train.examples.x.shape[1:] == task.test.x.shape[1:] == (7,)
  assert task.input_spec['x'].dtype == 'float32'
  assert projection.UNCOVERED in task.uncovered
  assert task.model_factory().count_params() == 7 * 1000 + 1000 + 10_010


@pytest.mark.parametrize('model', [None, 'cnn'])
def test_a_model_of_images_is_refused(model):
  with pytest.raises(validate.UsageError, match='--task.model: expected one'):
    tasks.check(_task(model=model, components=7))
