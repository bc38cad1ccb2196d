"""Encodings: exact references, unbiasedness, lengths, and who decides them."""

import numpy as np
import pytest
import tensorflow as tf

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline.client_work import compression
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop

_SIZES = [6, 30]


def _leaves(name, **leaves):
  return config.Compression(name=name, **leaves)


ENCODINGS = {
  'quantization': _leaves('quantization', bits=3, rounding='nearest'),
  'stochastic': _leaves('quantization', bits=3, rounding='stochastic'),
  'hadamard': _leaves(
    'quantization', bits=3, rounding='stochastic', rotation='hadamard'
  ),
  'top_k': _leaves('top_k', kept_share=0.25),
  'random_k': _leaves('random_k', kept_share=0.25),
}
each_encoding = pytest.mark.parametrize(
  'leaves', ENCODINGS.values(), ids=ENCODINGS
)


def _update(seed=0):
  rng = np.random.default_rng(seed)
  return tuple(
    rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (30,))
  )


def _decode(leaves, update, key=(1, 2)):
  seed = tf.constant(key, tf.int64)
  decoded = compression.decoded(leaves, tuple(map(tf.constant, update)), seed)
  return [t.numpy() for t in decoded]


def test_nearest_levels_are_numpys():
  for x, found in zip(
    _update(), _decode(ENCODINGS['quantization'], _update()), strict=True
  ):
    levels = np.linspace(x.min(), x.max(), 8)
    nearest = levels[np.abs(x[..., None] - levels).argmin(-1)]
    np.testing.assert_allclose(found, nearest, atol=1e-6)
    assert len(np.unique(found)) <= 8


def test_top_k_keeps_the_largest_of_the_whole_update():
  x = np.concatenate([t.ravel() for t in _update()])
  found = np.concatenate(
    [t.ravel() for t in _decode(ENCODINGS['top_k'], _update())]
  )
  kept = np.flatnonzero(found)
  assert set(kept) == set(np.argsort(-np.abs(x))[:9])
  np.testing.assert_array_equal(found[kept], x[kept])


def test_random_k_keeps_so_many_scaled_up():
  x = np.concatenate([t.ravel() for t in _update()])
  found = np.concatenate(
    [t.ravel() for t in _decode(ENCODINGS['random_k'], _update())]
  )
  kept = np.flatnonzero(found)
  assert len(kept) == 9
  np.testing.assert_allclose(found[kept], 4 * x[kept], rtol=1e-6)


@pytest.mark.parametrize('name', ['stochastic', 'hadamard', 'random_k'])
def test_mean_over_keys_is_the_update(name):
  """Within five standard errors; `nearest` and `top_k` would fail this."""
  update = tuple(map(tf.constant, _update()))

  @tf.function
  def decode(seed):
    return compression.decoded(ENCODINGS[name], update, seed)

  draws = [decode(tf.constant([7, n], tf.int64)) for n in range(600)]
  for x, *found in zip(update, *draws, strict=True):
    found = np.stack(found).astype(np.float64)
    # The largest deviation: an entry near a level may never have left it.
    error = found.std(axis=0).max() / np.sqrt(len(found))
    assert error > 0
    assert np.abs(found.mean(axis=0) - x).max() < 5 * error


@each_encoding
def test_key_alone_decides(leaves):
  one, again = _decode(leaves, _update()), _decode(leaves, _update())
  for a, b in zip(one, again, strict=True):
    np.testing.assert_array_equal(a, b)
  other = _decode(leaves, _update(), key=(1, 3))
  same = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
  random = leaves.name == 'random_k' or leaves.rounding == 'stochastic'
  assert same != random


def test_rotation_alone_loses_nothing():
  fine = _leaves(
    'quantization', bits=16, rounding='nearest', rotation='hadamard'
  )
  for x, found in zip(_update(), _decode(fine, _update()), strict=True):
    np.testing.assert_allclose(found, x, atol=2e-4)


def test_rotation_helps_where_one_entry_dwarfs_the_others():
  x = np.full(1024, 0.01, np.float32) * np.sign(
    np.random.default_rng(0).normal(size=1024)
  ).astype(np.float32)
  x[17] = 10.0
  errors = {
    name: np.mean((_decode(ENCODINGS[name], (x,))[0] - x) ** 2)
    for name in ('stochastic', 'hadamard')
  }
  assert errors['hadamard'] < errors['stochastic']


@pytest.mark.parametrize(
  'name, expected',
  [
    ('quantization', 3 * 36 + 2 * 64),
    ('stochastic', 3 * 36 + 2 * 64),
    ('hadamard', 3 * (8 + 32) + 2 * 64 + 128),
    ('top_k', 9 * (32 + 6)),
    ('random_k', 9 * 32 + 128),
  ],
)
def test_bits_by_hand(name, expected):
  assert compression.bits(ENCODINGS[name], _SIZES) == expected


def test_no_compression_is_32_bits_and_the_same_release():
  none = config.Compression()
  assert compression.bits(none, _SIZES) == 32 * 36
  assert compression.release(none, protection.UNCHANGED) is (
    protection.UNCHANGED
  )


def test_comes_before_what_a_mechanism_does():
  """Under privacy: compress, then clip. The other way raises the norm."""
  seen = []

  def clip(update, element):
    seen.append(update)
    return tf.nest.map_structure(lambda t: t * 0.0, update), {}, {}

  released = compression.release(
    ENCODINGS['top_k'], protection.Release(call=clip)
  )
  element = {training_loop.KEY: tf.constant([1, 2], tf.int64)}
  update, *_ = released.call(tuple(map(tf.constant, _update())), element)
  assert sum(np.count_nonzero(t) for t in seen[0]) == 9
  assert all(np.all(t == 0) for t in update)


def _run(leaves, **settings):
  return cohorts.run(
    cohorts.build(config.Algorithm(), compression=leaves), **settings
  )


@pytest.mark.parametrize(
  'leaves',
  [
    _leaves('top_k', kept_share=1.0),
    _leaves('random_k', kept_share=1.0),
  ],
  ids=['top_k', 'random_k'],
)
def test_full_precision_is_none(leaves):
  plain = cohorts.run(cohorts.build(config.Algorithm()))
  cohorts.assert_equal(_run(leaves), plain, tolerance=1e-6)


def test_16_bits_are_nearly_none():
  fine = _leaves('quantization', bits=16, rounding='nearest')
  plain = cohorts.run(cohorts.build(config.Algorithm()))
  cohorts.assert_equal(_run(fine), plain, tolerance=1e-3)


@pytest.mark.parametrize(
  'leaves',
  [
    ENCODINGS['hadamard'],
    ENCODINGS['random_k'],
    config.Compression(broadcast_bits=6),
  ],
  ids=['hadamard', 'random_k', 'broadcast'],
)
def test_engines_agree(leaves):
  ours = _run(leaves)
  cohorts.assert_moved(ours)
  theirs = _run(leaves, engine=config.EngineName.TFF_RUNTIME)
  cohorts.assert_equal(ours, theirs)


def test_broadcast_has_so_many_levels():
  """With no one taking part but one client that learns nothing."""
  leaves = config.Compression(broadcast_bits=2)
  frozen = config.Client(batch_size=50, learning_rate=1e-12, shuffle='off')
  process = cohorts.build(config.Algorithm(), compression=leaves, client=frozen)
  # The update is (sent - trained) of the *sent* weights: zero here.
  (found, _), *_ = cohorts.run(process, client=frozen, cohorts=[[0]])
  start = small_models.build(small_models.dense).initial_weights[0]
  for one, other in zip(found, start, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)
