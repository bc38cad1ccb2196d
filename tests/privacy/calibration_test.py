"""Solutions never exceed their target, and come close to it."""

import dataclasses

import pytest

from tests import terms
from tff_pipeline import config
from tff_pipeline import sampling as sampling_
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import calibration
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger

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
  guaranteed = guarantees.build(terms.make(solved, sampling))
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
    terms.make(privacy(target_epsilon=target), cohort(sampling)), rounds=30
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
  found = calibration.solve(terms.make(given, cohort(sampling)), rounds=None)
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
  found = calibration.solve(
    terms.make(given, cohort(sampling, None)), rounds=20
  )
  assert found.leaf == 'cohort.clients_per_round'
  noised = privacy(noise_multiplier=2.0)
  assert price(noised, cohort(sampling, found.value), 20) == found.price
  assert found.price.epsilon <= target
  assert price(noised, cohort(sampling, found.value + 1), 20).epsilon > target


def test_everybody_may_be_within_the_target():
  given = privacy(
    target_epsilon=50.0, solve_for='clients_per_round', noise_multiplier=9.0
  )
  found = calibration.solve(
    terms.make(given, cohort('poisson', None)), rounds=5
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
    calibration.solve(terms.make(given, sampling), rounds=rounds)


def test_max_rounds_stops_before_exceeding():
  noised = privacy(noise_multiplier=2.0)
  guaranteed = guarantees.build(terms.make(noised, cohort('poisson')))
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
  assert with_limit(last + 50, recorded=ledger.Releases(3)) == last
  replayed = with_limit(last + 50, recorded=ledger.Releases(3, {2: 2, 3: 2}))
  assert 3 < replayed < last
  spent = ledger.Releases(replayed, {2: 2, 3: 2})
  assert accounting.headline(guaranteed, spent, delta=1e-5).epsilon <= 1.5
  spent = dataclasses.replace(spent, rounds=replayed + 1)
  assert accounting.headline(guaranteed, spent, delta=1e-5).epsilon > 1.5
  assert (
    with_limit(10, recorded=ledger.Releases(200, {r: 5 for r in range(1, 201)}))
    == 0
  )


def test_max_rounds_without_privacy_is_none():
  guaranteed = guarantees.build(terms.make(config.no_privacy(), cohort('full')))
  assert calibration.max_rounds(guaranteed, delta=None, epsilon=1e9) == 0


ADAPTIVE = {
  'target_quantile': 0.5,
  'clip_learning_rate': 0.2,
  'clipped_count_stddev': 20.0,
}


def other_terms(mechanism, sampling='fixed_size', **leaves):
  values = {'clip_norm': 1.0, 'delta': 1e-5, 'population': 500}
  if mechanism == 'gaussian_adaptive':
    values |= ADAPTIVE
  return terms.make(
    config.Privacy(mechanism=mechanism, **(values | leaves)),
    cohort(sampling),
    epochs=2,
  )


def priced(solved, rounds):
  guaranteed = guarantees.build(solved)
  return accounting.headline(guaranteed, rounds, delta=1e-5)


@pytest.mark.parametrize('sampling', ['poisson', 'full'])
@pytest.mark.parametrize('mechanism', ['gaussian_adaptive', 'local', 'dp_sgd'])
def test_noise_of_every_mechanism(mechanism, sampling):
  found = calibration.solve(
    other_terms(mechanism, sampling, target_epsilon=3.0), rounds=30
  )
  again = priced(
    other_terms(mechanism, sampling, noise_multiplier=found.value), 30
  )
  assert again == found.price
  assert 0.998 * 3.0 < again.epsilon <= 3.0


@pytest.mark.parametrize('mechanism', ['gaussian_adaptive', 'local', 'dp_sgd'])
def test_rounds_of_every_mechanism(mechanism):
  solving = other_terms(
    mechanism, target_epsilon=3.0, solve_for='rounds', noise_multiplier=6.0
  )
  found = calibration.solve(solving, rounds=None)
  given = other_terms(mechanism, noise_multiplier=6.0)
  assert priced(given, found.value) == found.price
  assert found.price.epsilon <= 3.0 < priced(given, found.value + 1).epsilon
  stop = calibration.max_rounds(
    guarantees.build(given), delta=1e-5, epsilon=3.0
  )
  assert stop == found.value


@pytest.mark.parametrize('mechanism', ['local', 'dp_sgd'])
def test_max_rounds_counts_what_was_replayed(mechanism):
  guaranteed = guarantees.build(other_terms(mechanism, noise_multiplier=9.0))

  def stop(recorded):
    return calibration.max_rounds(
      guaranteed, delta=1e-5, epsilon=3.0, recorded=recorded
    )

  once = stop(ledger.Releases(10))
  assert once == stop(None)
  replayed = ledger.Releases(10, {r: 2 for r in range(1, 11)})
  last = stop(replayed)
  assert 10 <= last < once
  for rounds, within in ((last, True), (last + 1, False)):
    spent = dataclasses.replace(replayed, rounds=rounds)
    found = accounting.headline(guaranteed, spent, delta=1e-5).epsilon
    assert (found <= 3.0) is within


@pytest.mark.parametrize(
  'batches',
  ['poisson', pytest.param('fixed_size', marks=pytest.mark.slow)],
)
def test_noise_of_pooled_examples(batches):
  def pooled(**leaves):
    given = config.Privacy(
      mechanism='dp_sgd', clip_norm=1.0, delta=1e-5, population=5000, **leaves
    )
    return terms.centralized(given, batches, batch_size=50)

  found = calibration.solve(pooled(target_epsilon=4.0), rounds=2)
  again = priced(pooled(noise_multiplier=found.value), 2)
  assert again == found.price
  assert 0.998 * 4.0 < again.epsilon <= 4.0


@pytest.mark.parametrize(
  'mechanism, leaves',
  [
    ('local', {}),
    ('dp_sgd', {}),
    ('gaussian', {'noise_cohort_size': 100}),
  ],
)
def test_cohorts_that_epsilon_does_not_follow_are_not_solved(mechanism, leaves):
  solving = other_terms(
    mechanism,
    target_epsilon=3.0,
    solve_for='clients_per_round',
    noise_multiplier=6.0,
    **leaves,
  )
  with pytest.raises(validate.UsageError, match='--privacy.solve_for'):
    calibration.solve(solving, rounds=5)


@pytest.mark.parametrize('count_stddev, target', [(0.4, 30.0), (1.5, 8.0)])
def test_adaptive_noise_stays_below_what_the_count_allows(count_stddev, target):
  # Below the solver's first guess of 1, and above it.
  solving = other_terms(
    'gaussian_adaptive',
    'poisson',
    target_epsilon=target,
    clipped_count_stddev=count_stddev,
  )
  found = calibration.solve(solving, rounds=5)
  assert found.value < 2 * count_stddev
  assert found.price.epsilon <= target


def test_a_count_that_needs_more_noise_is_named():
  solving = other_terms(
    'gaussian_adaptive', target_epsilon=0.1, clipped_count_stddev=0.4
  )
  with pytest.raises(validate.UsageError, match='clipped_count_stddev'):
    calibration.solve(solving, rounds=30)


def test_nobody_takes_part():
  # One expected client of 500 in one round: with this seed, none comes.
  given = other_terms('local', target_epsilon=1.0, population=500)
  seeds = (
    seed
    for seed in range(100)
    if not sampling_.build(config.poisson(1), population=500, seed=seed)(1).size
  )
  solving = dataclasses.replace(
    given, cohort=config.poisson(1), seed=next(seeds)
  )
  assert calibration.solve(solving, rounds=1).price.epsilon == 0


def test_adaptive_noise_is_not_rounded_beyond_what_the_count_allows():
  nearly_all = 0.8 * (1 - 1e-6)
  at_limit = priced(
    other_terms('gaussian', 'full', noise_multiplier=nearly_all), 5
  )
  solving = other_terms(
    'gaussian_adaptive',
    'full',
    target_epsilon=at_limit.epsilon * 1.0001,
    clipped_count_stddev=0.4,
  )
  assert nearly_all <= calibration.solve(solving, rounds=5).value < 0.8
