import numpy as np
import pytest
import tensorflow as tf

from tests import small_models
from tests import statistics
from tff_pipeline.client_work import dp_sgd
from tff_pipeline.client_work import local_dp
from tff_pipeline.client_work import training_loop

_CLIP_NORM = 0.5


def _release(update, *, noise_multiplier, noise_key=(1, 2)):
  release = local_dp.release(
    clip_norm=_CLIP_NORM, noise_multiplier=noise_multiplier
  )
  element = {training_loop.NOISE_KEY: tf.constant(noise_key, tf.int64)}
  released, counts, _ = release.call(
    tuple(tf.constant(t, tf.float32) for t in update), element
  )
  assert tuple(counts) == release.counts
  return [t.numpy() for t in released], int(counts['clipped_updates'])


def _update(norm):
  parts = [np.arange(1, 7).reshape(2, 3), np.ones(4)]
  total = np.sqrt(sum(np.sum(p**2) for p in parts))
  return [p * norm / total for p in parts]


@pytest.mark.parametrize(
  'norm, clipped', [(0.0, 0), (0.49, 0), (3.0, 1), (1e9, 1)]
)
def test_clips_the_whole_update(norm, clipped):
  update = _update(norm)
  released, count = _release(update, noise_multiplier=0.0)
  expected = min(1.0, _CLIP_NORM / max(norm, 1e-9))
  for one, other in zip(released, update, strict=True):
    np.testing.assert_allclose(one, other * expected, rtol=1e-5)
  assert count == clipped


def test_noise_has_the_stated_stddev():
  zeros = [np.zeros((100, 50)), np.zeros(5000)]
  noise, _ = _release(zeros, noise_multiplier=3.0)
  statistics.assert_stddev(noise, 3.0 * _CLIP_NORM)
  statistics.assert_unrelated(noise)
  other, _ = _release(zeros, noise_multiplier=3.0, noise_key=(1, 3))
  statistics.assert_unrelated([noise[0], other[0]])
  again, _ = _release(zeros, noise_multiplier=3.0)
  np.testing.assert_array_equal(noise[0], again[0])


def test_update_and_steps_do_not_share_noise():
  """Both follow the client's one noise key."""
  model = small_models.build(small_models.wide)
  gradient = dp_sgd.gradient(model, clip_norm=1.0, noise_multiplier=1.0)

  def first_steps():
    weights = tuple(map(tf.zeros_like, model.initial_weights[0]))
    x, y = small_models.examples(model, 1)
    return [
      gradient.call(
        (weights, ()),
        tf.constant(0 * x),
        tf.constant(y),
        training_loop.Step(
          number=tf.constant(number, tf.int64),
          seed=tf.zeros([2], tf.int64),
          batch_size=1,
          start=weights,
          element={training_loop.NOISE_KEY: tf.constant([1, 2], tf.int64)},
        ),
      ).value[0]
      for number in range(3)
    ]

  steps = small_models.evaluate(first_steps)
  zeros = [np.zeros(w.shape) for w in model.initial_weights[0]]
  update, _ = _release(zeros, noise_multiplier=1.0)
  statistics.assert_unrelated([update[0], *steps])
