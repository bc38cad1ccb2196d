import numpy as np
import pytest
import tensorflow as tf
from tensorflow_federated.python.aggregators import differential_privacy
import tensorflow_privacy as tfp

from tests import statistics
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import queries

_KEY = (5, -6)
_SHAPES = ((4000,), (80, 50))


def _gaussian(*, clip_norm=1.0, stddev=0.0, key=_KEY):
  return queries.KeyedGaussianSumQuery(
    l2_norm_clip=clip_norm, stddev=stddev, key=key
  )


def _adaptive(
  *,
  clip_norm=1.0,
  noise=0.0,
  count_stddev=0.0,
  quantile=0.5,
  rate=0.2,
  records=10.0,
  key=_KEY,
):
  return queries.KeyedAdaptiveClipSumQuery(
    initial_l2_norm_clip=clip_norm,
    sum_noise_multiplier=noise,
    count_stddev=count_stddev,
    target_quantile=quantile,
    learning_rate=rate,
    expected_records=records,
    key=key,
  )


def _release(query, state, records, template=None):
  """Returns (sum, next state, event) of one application."""
  params = query.derive_sample_params(state)
  template = template or records[0]
  total = query.initial_sample_state(
    tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), template)
  )
  for record in records:
    preprocessed = query.preprocess_record(params, record)
    total = tf.nest.map_structure(tf.add, total, preprocessed)
  return query.get_noised_result(total, state)


def _records(norms, *, size=3, seed=0):
  rng = np.random.default_rng(seed)
  records = []
  for norm in norms:
    direction = rng.normal(size=size + 2)
    direction *= norm / np.linalg.norm(direction)
    records.append(
      [
        tf.constant(direction[:size], tf.float32),
        tf.constant(direction[size:], tf.float32),
      ]
    )
  return records


_ZEROS = [tf.zeros(shape) for shape in _SHAPES]
_BOTH = {
  'gaussian': lambda **kwargs: _gaussian(stddev=3.0, **kwargs),
  'adaptive': lambda **kwargs: _adaptive(noise=3.0, count_stddev=4.0, **kwargs),
}


@pytest.fixture(params=_BOTH)
def query(request):
  """Either query with noise of standard deviation 3."""
  return _BOTH[request.param]()


def test_noise_on_the_sum_has_the_stated_stddev(query):
  noise, _, _ = _release(query, query.initial_global_state(), [_ZEROS])
  statistics.assert_stddev([t.numpy() for t in noise], 3.0)


def test_releases_and_tensors_do_not_share_noise(query):
  state = query.initial_global_state()
  parts = []
  for _ in range(3):
    noise, state, _ = _release(query, state, [_ZEROS])
    # The adaptive clip norm scales the noise from round to round.
    parts.extend(t.numpy() / state.l2_norm_clip for t in noise)
  statistics.assert_unrelated(parts)


@pytest.mark.parametrize('name', _BOTH)
def test_replayed_release_is_the_same_whatever_the_global_seed(name):
  found = []
  for seed in (1, 2):
    tf.random.set_seed(seed)
    query = _BOTH[name]()
    _, state, _ = _release(query, query.initial_global_state(), [_ZEROS])
    noise, state, _ = _release(query, state, [_ZEROS])
    found.append([*noise, state.l2_norm_clip])
  for one, other in zip(*found, strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('name', _BOTH)
def test_keys_do_not_share_noise(name):
  parts = []
  for key in (_KEY, (-6, 5), (5, -7)):
    query = _BOTH[name](key=key)
    noise, _, _ = _release(query, query.initial_global_state(), [_ZEROS])
    parts.append(noise[0].numpy())
  statistics.assert_unrelated(parts)


@pytest.mark.parametrize('make', [_gaussian, _adaptive])
def test_sum_of_clipped_records_equals_numpy(make):
  norms = [0.0, 0.3, 1.0, 1.7, 1e6]
  records = _records(norms)
  query = make()
  total, _, _ = _release(query, query.initial_global_state(), records)
  expected = sum(
    np.concatenate(record) / max(1.0, norm)
    for record, norm in zip(records, norms, strict=True)
  )
  np.testing.assert_allclose(np.concatenate(total), expected, atol=1e-5)


@pytest.mark.parametrize('make', [_gaussian, _adaptive])
@pytest.mark.parametrize('bad', [np.inf, np.nan, 1e30])
def test_record_that_is_not_finite_adds_nothing(make, bad):
  records = _records([0.5, 2.0, 0.7])
  poisoned = [*records, [tf.constant([1.0, bad, 0.0]), tf.zeros(2)]]
  query = make()
  state = query.initial_global_state()
  total, _, _ = _release(query, state, records)
  found, next_state, _ = _release(query, state, poisoned)
  for one, other in zip(total, found, strict=True):
    np.testing.assert_array_equal(one, other)
  # In the count it is a record of norm zero, within the clip norm.
  zero = [tf.zeros(3), tf.zeros(2)]
  _, expected, _ = _release(query, state, [*records, zero])
  assert next_state.l2_norm_clip == expected.l2_norm_clip


def test_gaussian_event_is_the_noise_over_the_clip_norm():
  query = _gaussian(clip_norm=0.5, stddev=0.6)
  _, _, event = _release(query, query.initial_global_state(), [_ZEROS])
  assert float(event.noise_multiplier) == pytest.approx(1.2)


@pytest.mark.parametrize('quantile', [0.2, 0.5, 0.9])
def test_without_noise_it_follows_tensorflow_privacys_query(quantile):
  ours = _adaptive(quantile=quantile, rate=0.3, records=7.0)
  theirs = tfp.QuantileAdaptiveClipSumQuery(
    initial_l2_norm_clip=1.0,
    noise_multiplier=0.0,
    target_unclipped_quantile=quantile,
    learning_rate=0.3,
    clipped_count_stddev=0.0,
    expected_num_records=7.0,
  )
  our_state = ours.initial_global_state()
  their_state = theirs.initial_global_state()
  rng = np.random.default_rng(1)
  for number in range(12):
    # Cohorts of other sizes than expected, an empty one among them.
    size = [7, 3, 0, 12][number % 4]
    records = _records(rng.lognormal(0.5, 1.0, size), seed=number)
    template = [tf.zeros(3), tf.zeros(2)]
    our_sum, our_state, _ = _release(ours, our_state, records, template)
    their_sum, their_state, _ = _release(theirs, their_state, records, template)
    for one, other in zip(our_sum, their_sum, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(
      our_state.l2_norm_clip, their_state.sum_state.l2_norm_clip, rtol=1e-5
    )


@pytest.mark.parametrize('quantile', [0.3, 0.5, 0.8])
def test_clip_norm_converges_to_the_quantile_of_the_norms(quantile):
  rng = np.random.default_rng(2)
  expected = 100
  query = _adaptive(
    clip_norm=20.0,
    noise=1.0,
    count_stddev=expected / 20,
    quantile=quantile,
    records=expected,
  )
  state = query.initial_global_state()
  norms = np.exp(rng.normal(size=(300, expected)))
  clip_norms = []
  for row in norms:
    clip_norm = state.l2_norm_clip.numpy()
    indicators = np.where(row <= clip_norm, 0.5, -0.5).sum()
    sums = query.SampleState([tf.zeros(2)], tf.constant(indicators, tf.float32))
    _, state, _ = query.get_noised_result(sums, state)
    clip_norms.append(clip_norm)
  settled = np.median(clip_norms[200:])
  assert settled == pytest.approx(np.quantile(norms, quantile), rel=0.1)


def test_count_has_noise_of_its_own_and_the_stated_stddev():
  """Read from the clip norm, which an empty cohort moves by noise alone."""
  query = _adaptive(noise=1.0, count_stddev=0.5, rate=1.0, records=10.0)
  state = query.initial_global_state()
  counts, first = [], []
  template = [tf.zeros(1)]
  for _ in range(400):
    before = np.log(state.l2_norm_clip.numpy().astype(np.float64))
    total, after, _ = _release(query, state, [], template)
    counts.append(-10 * (np.log(after.l2_norm_clip.numpy()) - before))
    first.append(total[0].numpy() / state.l2_norm_clip.numpy())
    # Only the counter goes on, so that rounding stays small.
    state = state._replace(num_releases=after.num_releases)
  statistics.assert_stddev([np.array(counts)], 0.5)
  statistics.assert_unrelated([np.array(counts), np.concatenate(first)])


def test_noise_follows_the_clip_norm_in_force():
  query = _adaptive(noise=3.0, count_stddev=4.0)
  state = query.initial_global_state()
  _, state, _ = _release(query, state._replace(l2_norm_clip=7.0), [_ZEROS])
  clip_norm = state.l2_norm_clip.numpy()
  assert clip_norm > 5.0
  total, _, _ = _release(query, state, [_ZEROS])
  statistics.assert_stddev([t.numpy() for t in total], 3.0 * clip_norm)
  assert query.noise_stddev(state).numpy() == pytest.approx(3.0 * clip_norm)


@pytest.mark.parametrize('noise, count_stddev', [(0.7, 5.0), (1.0, 0.6)])
def test_both_releases_together_have_the_noise_that_was_asked_for(
  noise, count_stddev
):
  for_sum = bounds.remaining_noise_multiplier(noise, other=2 * count_stddev)
  theirs, _ = differential_privacy.adaptive_clip_noise_params(
    noise, 100.0, count_stddev
  )
  assert for_sum == pytest.approx(theirs)
  query = _adaptive(noise=for_sum, count_stddev=count_stddev)
  _, _, event = _release(query, query.initial_global_state(), [_ZEROS])
  assert float(event.noise_multiplier) == pytest.approx(noise)


def test_no_noise_is_left_without_noise():
  assert bounds.remaining_noise_multiplier(0.0, other=2.0) == 0.0
  query = _adaptive(noise=0.0, count_stddev=1.0)
  _, _, event = _release(query, query.initial_global_state(), [_ZEROS])
  assert float(event.noise_multiplier) == 0.0
