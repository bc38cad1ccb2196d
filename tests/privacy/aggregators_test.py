import dp_accounting
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.aggregators import differential_privacy

from tff_pipeline.privacy import aggregators
from tff_pipeline.privacy import queries

_TYPE = tff.types.tensorflow_to_type([tf.TensorSpec([2]), tf.TensorSpec([1])])


def _values(*norms):
  return [
    [np.array([0.6 * n, 0.0], np.float32), np.array([0.8 * n], np.float32)]
    for n in norms
  ]


@pytest.fixture(scope='module')
def adaptive():
  query = queries.KeyedAdaptiveClipSumQuery(
    initial_l2_norm_clip=1.0,
    sum_noise_multiplier=0.0,
    count_stddev=0.0,
    target_quantile=0.5,
    learning_rate=1.0,
    expected_records=4.0,
    key=(1, 2),
  )
  return aggregators.MeasuredDpMean(query, denominator=4.0).create(_TYPE)


def test_share_is_measured_at_the_clip_norm_in_force(adaptive, on_tff_runtime):
  state = adaptive.initialize()
  output = adaptive.next(state, _values(0.5, 0.9, 2.0, 4.0))
  assert output.measurements['clip_norm'] == 1.0
  assert output.measurements['clipped_share'] == 0.5
  # Half was within, as wanted, so the norm has stayed.
  output = adaptive.next(output.state, _values(0.5, 0.9, 1.1, 0.1))
  assert output.measurements['clip_norm'] == pytest.approx(1.0)
  assert output.measurements['clipped_share'] == 0.25
  output = adaptive.next(output.state, _values(0.85))
  in_force = np.exp(-0.25)
  assert output.measurements['clip_norm'] == pytest.approx(in_force, rel=1e-6)
  assert output.measurements['clipped_share'] == 1.0


def test_denominator_is_public(adaptive, on_tff_runtime):
  state = adaptive.initialize()
  for values in (_values(1.0), _values(1.0, 1.0), []):
    result = adaptive.next(state, values).result
    expected = len(values) / 4
    np.testing.assert_allclose(result[0], [0.6 * expected, 0.0], rtol=1e-6)
    np.testing.assert_allclose(result[1], [0.8 * expected], rtol=1e-6)


def test_nobody_is_clipped_in_an_empty_cohort(adaptive, on_tff_runtime):
  output = adaptive.next(adaptive.initialize(), [])
  assert output.measurements['clipped_share'] == 0.0


@pytest.mark.parametrize('bad', [np.nan, np.inf, 3e38])
def test_value_that_is_not_finite_harms_nobody(adaptive, bad, on_tff_runtime):
  state = adaptive.initialize()
  good = adaptive.next(state, _values(1.0, 3.0))
  output = adaptive.next(state, _values(1.0, 3.0, bad))
  for one, other in zip(output.result, good.result, strict=True):
    np.testing.assert_array_equal(one, other)
  assert output.measurements['clipped_share'] == pytest.approx(1 / 3)
  assert np.isfinite(output.state.query_state.numerator_state.l2_norm_clip)


def test_state_is_that_of_tffs_factory(on_tff_runtime):
  query = queries.KeyedGaussianSumQuery(
    l2_norm_clip=0.5, stddev=0.6, key=(1, 2)
  )
  factory = aggregators.MeasuredDpMean(query, denominator=3.0)
  process = factory.create(_TYPE)
  state = process.next(process.initialize(), _values(1.0)).state
  found = differential_privacy.extract_dp_event_from_state(state)
  assert isinstance(found, dp_accounting.GaussianDpEvent)
  assert found.noise_multiplier == pytest.approx(1.2)


def test_fixed_denominator(on_tff_runtime):
  process = aggregators.FixedDenominatorMean(5.0).create(_TYPE)
  state = process.initialize()
  result = process.next(state, _values(1.0, 2.0)).result
  np.testing.assert_allclose(result[1], [0.8 * 3 / 5], rtol=1e-6)
  nothing = process.next(state, []).result
  assert not np.any(nothing[0]) and not np.any(nothing[1])


@pytest.mark.parametrize('multiplier', [0.0, 3.0])
def test_noise_norm_is_that_of_noise_alone(multiplier, on_tff_runtime):
  """Means of an empty cohort are noise alone: its norm is as expected."""
  specs = [tf.TensorSpec([200]), tf.TensorSpec([3])]
  wide = tff.types.tensorflow_to_type(specs)
  for query in (
    queries.KeyedGaussianSumQuery(
      l2_norm_clip=0.5, stddev=0.5 * multiplier, key=(1, 2)
    ),
    queries.KeyedAdaptiveClipSumQuery(
      initial_l2_norm_clip=0.5,
      sum_noise_multiplier=multiplier,
      count_stddev=0.0,
      target_quantile=0.5,
      learning_rate=1.0,
      expected_records=4.0,
      key=(3, 4),
    ),
  ):
    process = aggregators.MeasuredDpMean(query, denominator=4.0).create(wide)
    output = process.next(process.initialize(), [])
    measured = output.measurements
    norm = np.sqrt(sum(np.sum(np.square(part)) for part in output.result))
    assert measured['released_update_norm'] == pytest.approx(norm, rel=1e-5)
    expected = 0.5 * multiplier / 4 * np.sqrt(203)
    assert measured['noise_norm'] == pytest.approx(expected, rel=1e-5)
    # A chi-squared mean of 203: standard deviation 10% of the square.
    assert norm == pytest.approx(expected, rel=0.25)


def test_noise_norm_follows_the_clip_norm_in_force(on_tff_runtime):
  query = queries.KeyedAdaptiveClipSumQuery(
    initial_l2_norm_clip=1.0,
    sum_noise_multiplier=2.0,
    count_stddev=0.0,
    target_quantile=1.0,
    learning_rate=1.0,
    expected_records=4.0,
    key=(3, 4),
  )
  process = aggregators.MeasuredDpMean(query, denominator=4.0).create(_TYPE)
  output = process.next(process.initialize(), [])
  later = process.next(output.state, []).measurements
  ratio = later['noise_norm'] / output.measurements['noise_norm']
  assert later['clip_norm'] == pytest.approx(np.exp(0.5), rel=1e-6)
  assert ratio == pytest.approx(np.exp(0.5), rel=1e-6)
