import numpy as np
import pytest
import tensorflow as tf

from tests import statistics
from tff_pipeline import keyed_noise

_KEY = tf.constant([3, -4], tf.int64)
CLIPS = (keyed_noise.clip, keyed_noise.clip_each_tensor)


def _noise(seed, *, stddev=1.0, shapes=((5000,), (100, 50))):
  zeros = [tf.zeros(shape) for shape in shapes]
  noised = keyed_noise.add_gaussian_noise(zeros, stddev=stddev, seed=seed)
  return [t.numpy() for t in noised]


def test_paths_of_one_length_give_different_seeds():
  paths = [(a, b) for a in range(30) for b in range(30)]
  seeds = {
    tuple(keyed_noise.derive_seed(_KEY, *path).numpy()) for path in paths
  }
  assert len(seeds) == len(paths)
  again = tuple(keyed_noise.derive_seed(_KEY, 2, 7).numpy())
  assert again in seeds


def test_both_words_of_a_key_matter():
  keys = ([1, 2], [2, 1], [1, 3], [0, 2], [-1, 2])
  seeds = {
    tuple(keyed_noise.derive_seed(tf.constant(k, tf.int64), 5).numpy())
    for k in keys
  }
  assert len(seeds) == len(keys)


def test_noise_has_the_stated_stddev():
  statistics.assert_stddev(_noise(_KEY, stddev=0.3), 0.3)


def test_no_two_tensors_or_seeds_share_noise():
  parts = _noise(_KEY) + _noise(keyed_noise.derive_seed(_KEY, 0))
  statistics.assert_unrelated(parts)


def test_noise_is_a_function_of_the_seed():
  tf.random.set_seed(1)
  first = _noise(_KEY)
  tf.random.set_seed(2)
  for one, other in zip(first, _noise(_KEY), strict=True):
    np.testing.assert_array_equal(one, other)


def test_no_noise_at_stddev_zero():
  value = {'a': tf.constant([1.0, 2.0]), 'b': tf.constant(3.0, tf.float64)}
  noised = keyed_noise.add_gaussian_noise(value, stddev=0.0, seed=_KEY)
  tf.nest.map_structure(np.testing.assert_array_equal, noised, value)


def _value(scale=1.0):
  return [tf.constant([[3.0 * scale]]), tf.constant([0.0, 4.0 * scale])]


@pytest.mark.parametrize(
  'clip_norm, factor', [(10.0, 1.0), (5.0, 1.0), (2.0, 0.4), (1e-6, 2e-7)]
)
def test_clips_the_norm_over_all_tensors(clip_norm, factor):
  clipped, norm = keyed_noise.clip(_value(), clip_norm)
  assert float(norm) == 5.0
  for one, other in zip(clipped, _value(), strict=True):
    np.testing.assert_allclose(one, factor * other.numpy(), rtol=1e-6)


def test_norms_never_exceed_the_clip_norm():
  rng = np.random.default_rng(0)
  for scale in np.geomspace(1e-6, 1e12, 30):
    value = [tf.constant(scale * rng.normal(size=999), tf.float32)]
    (clipped,), norm = keyed_noise.clip(value, 0.7)
    found = np.linalg.norm(clipped.numpy().astype(np.float64))
    assert found <= 0.7 * (1 + 1e-5)
    assert found == pytest.approx(min(float(norm), 0.7), rel=1e-5)


@pytest.mark.parametrize('clip', CLIPS)
def test_value_within_the_norm_is_not_touched(clip):
  rng = np.random.default_rng(0)
  value = [tf.constant(rng.normal(size=999), tf.float32)]
  clipped, _ = clip(value, 1e3)
  np.testing.assert_array_equal(clipped[0], value[0])


@pytest.mark.parametrize('clip_norm', [0.3, 2.0, 5.0, 9.0])
def test_clips_each_tensor_to_its_share(clip_norm):
  rng = np.random.default_rng(1)
  value = [scale * rng.normal(size=(5, 4)) for scale in (1e-3, 0.5, 40.0)]
  clipped, norm = keyed_noise.clip_each_tensor(
    [tf.constant(v, tf.float32) for v in value], clip_norm
  )
  share = clip_norm / np.sqrt(3)
  for one, other in zip(clipped, value, strict=True):
    expected = other * min(1.0, share / np.linalg.norm(other))
    np.testing.assert_allclose(one, expected, rtol=1e-5)
  largest = max(np.linalg.norm(v) for v in value)
  assert float(norm) == pytest.approx(np.sqrt(3) * largest)


@pytest.mark.parametrize('clip', CLIPS)
def test_the_whole_is_within_the_clip_norm_and_says_what_was_clipped(clip):
  """The law that prices rely on, and the one that counts rely on."""
  rng = np.random.default_rng(2)
  for number in range(60):
    value = [
      tf.constant(rng.lognormal(0, 3) * rng.normal(size=size), tf.float32)
      for size in rng.integers(1, 30, size=1 + number % 5)
    ]
    clip_norm = rng.lognormal(1, 2)
    clipped, norm = clip(value, clip_norm)
    whole = np.concatenate(clipped).astype(np.float64)
    assert np.linalg.norm(whole) <= clip_norm * (1 + 1e-5)
    is_same = all(
      np.array_equal(one, other)
      for one, other in zip(clipped, value, strict=True)
    )
    assert is_same == (float(norm) <= clip_norm)
    # That norm is the smallest that clips nothing.
    for factor in (0.999, 1.001):
      _, again = clip(value, factor * float(norm))
      assert (float(again) <= factor * float(norm)) == (factor > 1)


@pytest.mark.parametrize('bad', [np.inf, -np.inf, np.nan, 3e38, 1e20])
def test_value_that_is_not_finite_is_zero_as_a_whole(bad):
  value = [tf.constant([1.0, 2.0]), tf.constant([[0.0, bad]])]
  zeroed, norm, finite = keyed_noise.zero_if_non_finite(value)
  assert not finite and norm == 0
  assert all(not np.any(t) for t in zeroed)
  for clip in CLIPS:
    clipped, norm = clip(value, 1.0)
    assert norm == 0
    assert all(not np.any(t) for t in clipped)


@pytest.mark.parametrize('clip', CLIPS)
def test_zero_stays_zero(clip):
  clipped, norm = clip([tf.zeros(3)], 0.0)
  assert norm == 0 and not np.any(clipped[0])
