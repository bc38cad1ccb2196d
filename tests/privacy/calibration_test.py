"""Solutions never exceed their target, and come close to it."""

import dataclasses

import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import calibration

SAMPLINGS = ('poisson', 'fixed_size', 'full')


def privacy(**leaves):
  return config.gaussian(
    clip_norm=1.0, delta=1e-5, **({'population': 500} | leaves)
  )


def cohort(sampling, size=25):
  if sampling == 'full':
    return config.full()
  return config.Cohort(sampling=sampling, clients_per_round=size)


def price(solved, sampling, rounds):
  guaranteed = accounting.guarantee(solved, sampling)
  return accounting.headline(guaranteed, rounds, delta=1e-5)


@pytest.mark.parametrize(
  'sampling, target',
  [
    ('poisson', 0.3),
    ('poisson', 20.0),
    ('fixed_size', 2.0),
    ('full', 0.3),
    ('full', 20.0),
  ],
)
def test_noise(sampling, target):
  found = calibration.solve(
    privacy(target_epsilon=target), cohort(sampling), rounds=30
  )
  assert found.leaf == 'privacy.noise_multiplier'
  assert found.target_epsilon == target
  # Priced again, from the value alone.
  again = price(privacy(noise_multiplier=found.value), cohort(sampling), 30)
  assert again == found.price
  assert 0.998 * target < again.epsilon <= target
  assert float(f'{found.value:.5g}') == found.value


@pytest.mark.parametrize('target', [1.0, 4.0])
@pytest.mark.parametrize('sampling', SAMPLINGS)
def test_rounds(sampling, target):
  given = privacy(
    target_epsilon=target, solve_for='rounds', noise_multiplier=6.0
  )
  found = calibration.solve(given, cohort(sampling), rounds=None)
  assert found.leaf == 'rounds'
  noised = privacy(noise_multiplier=6.0)
  at_most = price(noised, cohort(sampling), found.value)
  assert at_most == found.price
  assert at_most.epsilon <= target
  assert price(noised, cohort(sampling), found.value + 1).epsilon > target


@pytest.mark.parametrize(
  'sampling, target',
  [
    ('poisson', 0.5),
    ('poisson', 4.0),
    pytest.param('fixed_size', 3.0, marks=pytest.mark.slow),
  ],
)
def test_cohort_size(sampling, target):
  given = privacy(
    target_epsilon=target, solve_for='clients_per_round', noise_multiplier=2.0
  )
  found = calibration.solve(given, cohort(sampling, None), rounds=20)
  assert found.leaf == 'cohort.clients_per_round'
  noised = privacy(noise_multiplier=2.0)
  assert price(noised, cohort(sampling, found.value), 20) == found.price
  assert found.price.epsilon <= target
  assert price(noised, cohort(sampling, found.value + 1), 20).epsilon > target


def test_everybody_may_be_within_the_target():
  found = calibration.solve(
    privacy(
      target_epsilon=50.0, solve_for='clients_per_round', noise_multiplier=9.0
    ),
    cohort('poisson', None),
    rounds=5,
  )
  assert found.value == 500


@pytest.mark.parametrize(
  'leaves, sampling, rounds',
  [
    ({'target_epsilon': 1e-9, 'delta': 1e-15}, cohort('full'), 10**9),
    (
      {'target_epsilon': 0.01, 'solve_for': 'rounds', 'noise_multiplier': 1.0},
      cohort('full'),
      None,
    ),
    (
      {'target_epsilon': 1.0, 'solve_for': 'rounds', 'noise_multiplier': 0.0},
      cohort('poisson'),
      None,
    ),
    (
      {'target_epsilon': 9.0, 'solve_for': 'rounds', 'noise_multiplier': 1e6},
      cohort('full'),
      None,
    ),
    (
      {
        'target_epsilon': 0.01,
        'solve_for': 'clients_per_round',
        'noise_multiplier': 0.5,
      },
      cohort('poisson', None),
      10,
    ),
  ],
)
def test_targets_out_of_reach(leaves, sampling, rounds):
  given = dataclasses.replace(privacy(target_epsilon=1.0), **leaves)
  with pytest.raises(validate.UsageError, match='--privacy.target_epsilon'):
    calibration.solve(given, sampling, rounds=rounds)


def test_max_rounds_stops_before_exceeding():
  noised = privacy(noise_multiplier=2.0)
  guaranteed = accounting.guarantee(noised, cohort('poisson'))
  last = calibration.max_rounds(guaranteed, delta=1e-5, epsilon=1.5)
  assert price(noised, cohort('poisson'), last).epsilon <= 1.5
  assert price(noised, cohort('poisson'), last + 1).epsilon > 1.5

  def with_limit(limit, recorded=None):
    return calibration.max_rounds(
      guaranteed, delta=1e-5, epsilon=1.5, limit=limit, recorded=recorded
    )

  assert with_limit(last - 1) == last - 1
  assert with_limit(last + 50) == last
  # Where one starts does not matter, but releases from one cohort do.
  assert with_limit(last + 50, recorded={1: 3}) == last
  replayed = with_limit(last + 50, recorded={1: 1, 2: 2})
  assert 3 < replayed < last
  spent = {1: replayed - 2, 2: 2}
  assert accounting.headline(guaranteed, spent, delta=1e-5).epsilon <= 1.5
  spent[1] += 1
  assert accounting.headline(guaranteed, spent, delta=1e-5).epsilon > 1.5
  assert with_limit(10, recorded={5: 200}) == 0


def test_max_rounds_without_privacy_is_none():
  guaranteed = accounting.guarantee(config.no_privacy(), cohort('full'))
  assert calibration.max_rounds(guaranteed, delta=None, epsilon=1e9) == 0
