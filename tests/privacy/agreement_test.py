"""What acts also accounts: the noise that is drawn is the noise priced."""

import collections
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.aggregators import differential_privacy

from tests import terms
from tff_pipeline import config
from tff_pipeline.privacy import accountants
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import mechanisms
from tff_pipeline.privacy import noise_key

_TYPE = tff.types.tensorflow_to_type([tf.TensorSpec([2])])
_ADAPTIVE = {
  'target_quantile': 0.5,
  'clip_learning_rate': 0.2,
  'clipped_count_stddev': 5.0,
}


def _build(mechanism, **leaves):
  values = {
    'noise_multiplier': 2.0,
    'clip_norm': 0.5,
    'delta': 1e-5,
    'population': 200,
  }
  if mechanism == 'gaussian_adaptive':
    values |= _ADAPTIVE
  given = config.Privacy(mechanism=mechanism, **(values | leaves))
  return mechanisms.build(
    terms.make(given, config.fixed_size(20)),
    population=200,
    noise_key=noise_key.from_seed(1),
  )


def _event_in_state(mechanism):
  """Returns the event that TFF's factory reports after one round."""
  process = mechanism.aggregator.create(_TYPE)
  value = [np.array([0.1, 0.2], np.float32)]
  state = process.next(process.initialize(), [value]).state
  return differential_privacy.extract_dp_event_from_state(state)


@pytest.mark.parametrize('mechanism', ['gaussian', 'gaussian_adaptive'])
@pytest.mark.parametrize('noise', [0.7, 2.0])
def test_declared_event_is_the_one_in_tffs_state(
  mechanism, noise, on_tff_runtime
):
  built = _build(mechanism, noise_multiplier=noise)
  acting = accountants.plain(_event_in_state(built))
  declared = bounds.combined_noise_multiplier(built.guarantee.releases)
  assert acting.noise_multiplier == pytest.approx(noise, rel=1e-6)
  assert declared == pytest.approx(noise, rel=1e-12)


@pytest.mark.parametrize('mechanism', ['gaussian', 'gaussian_adaptive'])
def test_an_extrapolated_run_has_less_noise_and_says_how_much(
  mechanism, on_tff_runtime
):
  built = _build(mechanism, noise_cohort_size=80, population=1000)
  acting = accountants.plain(_event_in_state(built))
  assert acting.noise_multiplier == pytest.approx(2.0 * 20 / 80, rel=1e-6)
  own = built.guarantee.also['as_run']
  declared = bounds.combined_noise_multiplier(own.releases)
  assert declared == pytest.approx(acting.noise_multiplier, rel=1e-6)


def test_noise_on_a_client_is_the_noise_priced():
  built = _build('local', clip_norm=1.0)
  draws = []
  for number in range(400):
    element = {'noise_key': tf.constant([number, 7], tf.int64)}
    update = collections.OrderedDict(w=tf.zeros([50]))
    noised, *_ = built.protection.release.call(update, element)
    draws.append(noised['w'].numpy())
  (release,) = built.guarantee.releases
  draws = np.concatenate(draws)
  expected = release.noise_multiplier * release.clip_norm
  # Five standard errors of a standard deviation.
  margin = 5 * expected / math.sqrt(2 * len(draws))
  assert abs(draws.std() - expected) < margin
