"""Mechanisms: what each guarantees, by table, law and independent formula."""

import dataclasses
import math

import attr
import dp_accounting
from dp_accounting import pld
import numpy as np
import pytest
from scipy import optimize
from scipy import stats

from tests import terms as terms_
from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger

DELTA = 1e-5
POPULATION = 200
SIZE = 20
ROUNDS = 7
EPOCHS = 3
POISSON, FIXED, FULL = config.Sampling
ADD_REMOVE, REPLACE, ZERO_OUT = config.Relation
MECHANISMS = {
  'gaussian': {},
  'gaussian_adaptive': {
    'target_quantile': 0.5,
    'clip_learning_rate': 0.2,
    'clipped_count_stddev': 5.0,
  },
  'local': {},
  'dp_sgd': {},
}
COHORTS = {
  POISSON: config.poisson(SIZE),
  FIXED: config.fixed_size(SIZE),
  FULL: config.full(),
}


def privacy(mechanism, **leaves):
  values = {
    'noise_multiplier': 2.0,
    'clip_norm': 0.5,
    'delta': DELTA,
    'population': POPULATION,
  }
  return config.Privacy(
    mechanism=mechanism, **(values | MECHANISMS[mechanism] | leaves)
  )


def make(mechanism, sampling_=FIXED, *, epochs=EPOCHS, seed=0, **leaves):
  return guarantees.build(
    terms_.make(
      privacy(mechanism, **leaves),
      COHORTS[sampling_],
      epochs=epochs,
      seed=seed,
    )
  )


def pooled(batches, *, epochs=EPOCHS, batch_size=SIZE, **leaves):
  return guarantees.build(
    terms_.centralized(
      privacy('dp_sgd', **leaves),
      batches,
      epochs=epochs,
      batch_size=batch_size,
    )
  )


def price(guaranteed, released=ROUNDS, delta=DELTA):
  return accounting.headline(guaranteed, released, delta=delta).epsilon


def most(sampling_, rounds=ROUNDS, seed=0):
  """Participations of the client that has most, counted by hand."""
  sample = sampling.build(COHORTS[sampling_], population=POPULATION, seed=seed)
  drawn = np.concatenate([sample(r) for r in range(1, rounds + 1)])
  return int(np.bincount(drawn).max())


def closed_form(noise_multiplier, count, delta=DELTA):
  """Epsilon of a Gaussian mechanism done `count` times, from its definition.

  delta(eps) = P(loss > eps) - e^eps P(-loss' > eps), the loss being normal with
  mean mu^2/2 and variance mu^2: theorem 8 of Balle and Wang 2018.
  """
  mu = math.sqrt(count) / noise_multiplier

  def excess(eps):
    return (
      stats.norm.sf(eps, mu**2 / 2, mu)
      - math.exp(eps) * stats.norm.sf(eps, -(mu**2) / 2, mu)
      - delta
    )

  return optimize.brentq(excess, 0, 200, xtol=1e-12)


def gaussian(noise):
  return dp_accounting.GaussianDpEvent(noise)


def repeat(event, count):
  return dp_accounting.SelfComposedDpEvent(event, count)


def poisson(noise):
  return dp_accounting.PoissonSampledDpEvent(0.1, gaussian(noise))


def without_replacement(noise):
  return dp_accounting.SampledWithoutReplacementDpEvent(
    POPULATION, SIZE, gaussian(noise)
  )


# (sampling, relation) -> bounds of seven rounds, as (relation, event); absent
# cells are refused. N=200, m=20, z=2.
CENTRAL = {
  (POISSON, ADD_REMOVE): {
    (ADD_REMOVE, poisson(2.0)),
    (ADD_REMOVE, gaussian(2.0)),
  },
  (POISSON, ZERO_OUT): {(ADD_REMOVE, poisson(2.0)), (ZERO_OUT, gaussian(2.0))},
  (FIXED, REPLACE): {
    (REPLACE, without_replacement(1.0)),
    (REPLACE, gaussian(1.0)),
  },
  (FIXED, ZERO_OUT): {
    (REPLACE, without_replacement(1.0)),
    (ZERO_OUT, gaussian(2.0)),
  },
  (FULL, ADD_REMOVE): {(ADD_REMOVE, gaussian(2.0))},
  (FULL, REPLACE): {(REPLACE, gaussian(1.0))},
  (FULL, ZERO_OUT): {(ZERO_OUT, gaussian(2.0))},
}


def expected_bounds(mechanism, sampling_, relation):
  """Returns the bounds of a cell, or `None` if it is refused."""
  if mechanism in ('gaussian', 'gaussian_adaptive'):
    events = CENTRAL.get((sampling_, relation))
    return events and {(rel, repeat(e, ROUNDS)) for rel, e in events}
  own = {
    ('local', REPLACE): (1.0, 1),
    ('dp_sgd', ZERO_OUT): (2.0, EPOCHS),
    ('dp_sgd', REPLACE): (1.0, EPOCHS),
  }.get((mechanism, relation))
  if own is None:
    return None
  noise, times = own
  return {(relation, repeat(gaussian(noise), times * most(sampling_)))}


def rounded(event):
  """An event with leaves to nine digits: sum and count make 2 up to those."""
  if isinstance(event, dp_accounting.GaussianDpEvent):
    return gaussian(round(event.noise_multiplier, 9))
  return attr.evolve(event, event=rounded(event.event))


@pytest.mark.parametrize('relation', config.Relation)
@pytest.mark.parametrize('sampling_', config.Sampling)
@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_every_cell_is_priced_or_refused(mechanism, sampling_, relation):
  expected = expected_bounds(mechanism, sampling_, relation)
  if expected is None:
    with pytest.raises(validate.UsageError, match='--privacy.relation'):
      make(mechanism, sampling_, relation=relation)
    return
  guaranteed = make(mechanism, sampling_, relation=relation)
  assert guaranteed.relation is relation
  found = {
    (b.relation, rounded(b.event(ledger.Releases(ROUNDS))))
    for b in guaranteed.bounds
  }
  assert found == expected
  assert 0 < price(guaranteed) < math.inf


@pytest.mark.parametrize('relation', config.Relation)
@pytest.mark.parametrize('batches', config.Batches)
def test_pooled_batches_are_priced_as_cohorts(batches, relation):
  sampling_ = config.Sampling(batches)
  if (sampling_, relation) not in CENTRAL:
    with pytest.raises(validate.UsageError, match='--privacy.relation'):
      pooled(batches, relation=relation)
    return
  guaranteed = pooled(batches, relation=relation)
  # Three passes over 200 examples in batches of 20: 30 steps a round.
  assert {
    (b.relation, b.event(ledger.Releases(ROUNDS))) for b in guaranteed.bounds
  } == {(r, repeat(e, 30 * ROUNDS)) for r, e in CENTRAL[sampling_, relation]}


@pytest.mark.parametrize(
  'guaranteed, unit, relation',
  [
    (make('gaussian', POISSON), 'user', ADD_REMOVE),
    (make('gaussian_adaptive', FIXED), 'user', REPLACE),
    (make('local', POISSON), 'user', REPLACE),
    (make('local', FULL), 'user', REPLACE),
    (make('dp_sgd', POISSON), 'example', ZERO_OUT),
    (make('dp_sgd', FIXED), 'example', ZERO_OUT),
    (pooled('poisson'), 'example', ADD_REMOVE),
    (pooled('fixed_size'), 'example', REPLACE),
  ],
)
def test_units_and_default_relations(guaranteed, unit, relation):
  assert (guaranteed.unit, guaranteed.relation) == (unit, relation)


@pytest.mark.parametrize('sampling_', COHORTS)
@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_laws(mechanism, sampling_):
  """Monotone in rounds, noise and delta; infinite without noise."""
  guaranteed = make(mechanism, sampling_)
  by_rounds = [price(guaranteed, rounds) for rounds in (0, 1, 4, 40)]
  assert by_rounds == sorted(by_rounds) and by_rounds[0] == 0
  assert by_rounds[1] < by_rounds[3] < math.inf
  by_noise = [
    price(make(mechanism, sampling_, noise_multiplier=z))
    for z in (0.0, 0.3, 1.0, 8.0)
  ]
  assert by_noise[0] == math.inf
  assert by_noise == sorted(by_noise, reverse=True) and len(set(by_noise)) == 4
  assert price(guaranteed, delta=1e-8) > price(guaranteed, delta=1e-3)
  every_round = {r: 2 for r in range(1, ROUNDS + 1)}
  again = price(guaranteed, ledger.Releases(ROUNDS, every_round))
  assert price(guaranteed) < again


@pytest.mark.parametrize('batches', config.Batches)
def test_laws_of_pooled_examples(batches):
  guaranteed = pooled(batches)
  # A round of 30 steps is 30 rounds of one step.
  one_step = pooled(batches, epochs=1, batch_size=SIZE, population=POPULATION)
  assert price(guaranteed, 1) == price(one_step, 3)
  assert price(pooled(batches, noise_multiplier=0.0), 1) == math.inf
  replayed = price(guaranteed, ledger.Releases(4, {2: 2}))
  assert price(guaranteed, 4) < replayed < price(guaranteed, 8) * 1.5
  with pytest.raises(validate.UsageError, match='--client.batch_size'):
    pooled(batches, batch_size=POPULATION + 1)


@pytest.mark.parametrize(
  'epochs, population, batch_size, steps',
  [(1, 200, 20, 10), (3, 1437, 60, 72), (1, 10, 20, 1), (15, 60000, 256, 3516)],
)
def test_steps_per_round(epochs, population, batch_size, steps):
  client = config.Client(
    epochs=epochs, batch_size=batch_size, learning_rate=0.1
  )
  assert guarantees.steps_per_round(client, population=population) == steps


@pytest.mark.parametrize(
  'noise, epochs, rdp, pld', [(1.3, 15, 0.955, 0.865), (1.1, 60, 2.597, 2.382)]
)
def test_golden_pooled_examples(noise, epochs, rdp, pld):
  # FACTS: TensorFlow Privacy's MNIST tutorial, batch 256, by accountants of
  # today. The steps of 15 epochs are 3516 here, 3515.6 there.
  guaranteed = pooled(
    'poisson',
    epochs=epochs,
    batch_size=256,
    noise_multiplier=noise,
    population=60000,
  )
  by = {
    p.accountant: p.epsilon
    for p in reversed(accounting.prices(guaranteed, 1, delta=DELTA))
  }
  assert by['rdp'] == pytest.approx(rdp, abs=6e-4)
  assert by['pld'] == pytest.approx(pld, abs=6e-4)


def test_fixed_batches_are_not_priced_as_poisson():
  poisson_, fixed = pooled('poisson'), pooled('fixed_size')
  assert price(fixed) > 2 * price(poisson_)


# Adaptive clipping.


@pytest.mark.parametrize('noise', [0.3, 2.0, 9.99])
@pytest.mark.parametrize('sampling_', COHORTS)
def test_sum_and_count_together_have_the_noise_asked_for(noise, sampling_):
  guaranteed = make('gaussian_adaptive', sampling_, noise_multiplier=noise)
  update, count = guaranteed.releases
  # Andrew et al. 2021, theorem 1; the count's sensitivity is a half.
  assert (count.clip_norm, count.noise_multiplier) == (0.5, 10.0)
  assert update.noise_multiplier == pytest.approx(
    (noise**-2 - 10.0**-2) ** -0.5
  )
  assert update.noise_multiplier > noise
  together = bounds.combined_noise_multiplier(guaranteed.releases)
  assert together == pytest.approx(noise, rel=1e-12)
  plain = make('gaussian', sampling_, noise_multiplier=noise)
  assert price(guaranteed) == pytest.approx(price(plain), rel=1e-9)


@pytest.mark.parametrize('noise', [10.0, 12.0])
def test_a_count_that_spends_everything_is_refused(noise):
  with pytest.raises(validate.UsageError, match='clipped_count_stddev'):
    make('gaussian_adaptive', noise_multiplier=noise)


# Guarantees of single clients.


@pytest.mark.parametrize('sampling_', COHORTS)
def test_local_is_the_gaussian_of_twice_the_distance(sampling_):
  guaranteed = make('local', sampling_, noise_multiplier=5.0)
  expected = closed_form(2.5, most(sampling_))
  assert price(guaranteed) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize('sampling_', COHORTS)
@pytest.mark.parametrize('relation, scale', [(ZERO_OUT, 1.0), (REPLACE, 0.5)])
def test_dp_sgd_is_one_gaussian_an_epoch(sampling_, relation, scale):
  guaranteed = make(
    'dp_sgd', sampling_, noise_multiplier=6.0, relation=relation
  )
  expected = closed_form(6.0 * scale, EPOCHS * most(sampling_))
  assert price(guaranteed) == pytest.approx(expected, rel=1e-7)


def sampled_examples(rate, sampling_=FIXED, *, max_steps=None, **leaves):
  """DP-SGD on Poisson batches of each client's examples."""
  client = config.Client(
    epochs=EPOCHS, sampling_rate=rate, max_steps=max_steps, learning_rate=0.1
  )
  made = terms_.make(privacy('dp_sgd', **leaves), COHORTS[sampling_])
  return guarantees.build(dataclasses.replace(made, client=client))


@pytest.mark.parametrize('sampling_', COHORTS)
@pytest.mark.parametrize('max_steps, steps', [(None, 12), (5, 5)])
def test_dp_sgd_on_poisson_batches_is_amplified(sampling_, max_steps, steps):
  guaranteed = sampled_examples(0.25, sampling_, max_steps=max_steps)
  reference = pld.PLDAccountant()  # Of adding or removing one.
  event = dp_accounting.PoissonSampledDpEvent(0.25, gaussian(2.0))
  reference.compose(event, steps * most(sampling_))
  expected = reference.get_epsilon(DELTA)
  assert price(guaranteed) == pytest.approx(expected, rel=2e-3)
  assert guaranteed.relation is ZERO_OUT
  assert accounting.client_epsilon(
    guaranteed, most(sampling_), delta=DELTA
  ) == price(guaranteed)


def test_dp_sgd_on_poisson_batches_of_everything_is_one_gaussian_a_step():
  everything = sampled_examples(1.0, noise_multiplier=6.0)
  expected = closed_form(6.0, EPOCHS * most(FIXED))
  assert price(everything) == pytest.approx(expected, rel=1e-4)


def test_dp_sgd_on_poisson_batches_costs_what_abadi_et_al_say():
  """CCS 2016, section 3.2: q 0.01, sigma 4, 10,000 steps: epsilon 1.26."""
  guaranteed = sampled_examples(0.01, FULL, noise_multiplier=4.0, max_steps=100)
  by_moments = accounting.epsilon(guaranteed, 100, delta=1e-5, accountant='rdp')
  assert 1.0 < by_moments < 1.26  # RDP converts better than moments did.


@pytest.mark.parametrize('relation', [REPLACE, ADD_REMOVE])
def test_poisson_batches_of_clients_are_priced_under_zero_out_alone(relation):
  with pytest.raises(validate.UsageError, match='privacy.relation.*zero_out'):
    sampled_examples(0.25, relation=relation)


@pytest.mark.parametrize('mechanism', ['local', 'dp_sgd'])
def test_cohorts_do_not_amplify_what_a_client_releases(mechanism):
  # The most frequent client of a sampled run pays as under full participation
  # in as many rounds.
  sampled, everybody = make(mechanism, FIXED), make(mechanism, FULL)
  assert most(FIXED) > ROUNDS * SIZE / POPULATION
  assert price(sampled) == price(everybody, most(FIXED))


@pytest.mark.parametrize('mechanism', ['local', 'dp_sgd'])
def test_the_seed_decides_who_pays(mechanism):
  prices = {
    seed: price(make(mechanism, POISSON, seed=seed)) for seed in range(12)
  }
  participations = {seed: most(POISSON, seed=seed) for seed in prices}
  assert len(set(participations.values())) > 1
  for one in prices:
    for other in prices:
      if participations[one] < participations[other]:
        assert prices[one] < prices[other]


@pytest.mark.parametrize('mechanism', ['local', 'dp_sgd'])
def test_a_replay_under_another_key_counts_for_who_took_part(mechanism):
  guaranteed = make(mechanism, FIXED)
  sample = sampling.build(COHORTS[FIXED], population=POPULATION, seed=0)
  counts = np.zeros(POPULATION, int)
  for round_num in range(1, ROUNDS + 1):
    counts[sample(round_num)] += 3 if round_num == 5 else 1
  once = make(mechanism, FULL)
  replayed = price(guaranteed, ledger.Releases(ROUNDS, {5: 3}))
  assert replayed == price(once, int(counts.max()))
  assert replayed > price(guaranteed)


def test_client_epsilon_is_that_of_its_participations():
  guaranteed = make('dp_sgd', FIXED)
  for count in (0, 1, 4):
    found = accounting.client_epsilon(guaranteed, count, delta=DELTA)
    expected = closed_form(2.0, EPOCHS * count) if count else 0.0
    assert found == pytest.approx(expected, rel=1e-7)
  assert price(guaranteed) == accounting.client_epsilon(
    guaranteed, most(FIXED), delta=DELTA
  )


# Local privacy, seen from outside.


def test_sums_of_local_reports():
  central = make('local', FIXED).also['central']
  assert central.scope is accounting.Scope.SUM_OF_LOCAL
  assert central.relation is REPLACE
  # z = 2 on each of 20 reports; FACTS: Gaussian(z sqrt(m) / 2).
  noise = 2.0 * math.sqrt(20) / 2
  assert {
    b.name: (b.relation, rounded(b.event(ledger.Releases(3))))
    for b in central.bounds
  } == {
    'without_replacement': (
      REPLACE,
      rounded(repeat(without_replacement(noise), 3)),
    ),
    'unamplified': (REPLACE, rounded(repeat(gaussian(noise), 3))),
  }
  everybody = make('local', FULL).also['central']
  found = price(everybody)
  assert found == pytest.approx(
    closed_form(2.0 * math.sqrt(POPULATION) / 2, ROUNDS), rel=1e-7
  )


def test_poisson_cohorts_have_no_central_figure():
  # The noise of a sum would depend on who takes part.
  assert 'central' not in make('local', POISSON).also


def test_the_headline_of_local_privacy_is_the_local_one():
  guaranteed = make('local', FIXED)
  assert guaranteed.scope is accounting.Scope.LOCAL
  assert price(guaranteed) > price(guaranteed.also['central'])


# Two guarantees of one run.


@pytest.mark.parametrize(
  'mechanism', ['gaussian', 'gaussian_adaptive', 'local']
)
def test_dp_sgd_beneath_a_user_level_mechanism(mechanism):
  example = {'example_noise_multiplier': 3.0, 'example_clip_norm': 0.25}
  both = make(mechanism, FIXED, **example)
  alone = make(mechanism, FIXED)
  assert price(both) == price(alone)
  assert 'example_level' not in alone.also
  beneath = both.also['example_level']
  assert (beneath.unit, beneath.relation) == ('example', ZERO_OUT)
  assert beneath.releases == (
    bounds.Release(name='step_gradient', clip_norm=0.25, noise_multiplier=3.0),
  )
  dp_sgd = make('dp_sgd', FIXED, noise_multiplier=3.0)
  assert price(beneath) == price(dp_sgd)
  silent = make(mechanism, FIXED, **example | {'example_noise_multiplier': 0.0})
  assert price(silent.also['example_level']) == math.inf
  assert price(silent) == price(alone)


# Extrapolation.


@pytest.mark.parametrize('mechanism', ['gaussian', 'gaussian_adaptive'])
@pytest.mark.parametrize('sampling_', [POISSON, FIXED])
def test_extrapolated_runs_are_priced_as_what_they_simulate(
  mechanism, sampling_
):
  leaves = {'population': 10_000}
  guaranteed = make(mechanism, sampling_, noise_cohort_size=400, **leaves)
  assert guaranteed.extrapolated
  assert '400' in guaranteed.sampler
  large = dataclasses.replace(COHORTS[sampling_], clients_per_round=400)
  simulated = guarantees.build(terms_.make(privacy(mechanism, **leaves), large))
  assert not simulated.extrapolated
  assert price(guaranteed) == price(simulated)
  # The run itself: 20 clients, and a twentieth of the noise on their sum.
  own = guaranteed.also['as_run']
  assert not own.extrapolated
  assert 'the clients in the data' in own.sampler
  distance = 0.5 if own.relation is REPLACE else 1.0
  assert price(own) == pytest.approx(
    large_epsilon(2.0 / 20 * distance), rel=1e-6
  )
  assert price(own) > price(guaranteed)


def large_epsilon(noise):
  return accounting.ACCOUNTANTS['pld'](
    repeat(gaussian(noise), ROUNDS),
    accounting.RELATIONS[ZERO_OUT],
    delta=DELTA,
  )


def test_an_extrapolated_cohort_has_no_examples():
  with pytest.raises(validate.UsageError, match='noise_cohort_size'):
    make(
      'gaussian',
      FIXED,
      noise_cohort_size=50,
      example_noise_multiplier=1.0,
      example_clip_norm=1.0,
    )


# Delta.


def test_delta_of_examples_is_below_that_of_the_largest_client():
  guarantees.check_example_delta(0.0099, [3, 100, 50])
  guarantees.check_example_delta(0.5, [])
  for delta in (0.01, 0.02, 0.3):
    with pytest.raises(validate.UsageError, match='--privacy.delta') as error:
      guarantees.check_example_delta(delta, np.array([3, 100, 50]))
    assert '100 examples' in str(error.value)


@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_unsolved_leaves_are_an_error(mechanism):
  with pytest.raises(ValueError, match='noise_multiplier'):
    make(mechanism, noise_multiplier=None, target_epsilon=1.0)
  with pytest.raises(ValueError, match='clients_per_round'):
    guarantees.build(terms_.make(privacy(mechanism), config.fixed_size(None)))
