"""What mechanisms guarantee: the sampler x relation table and its laws."""

import math

import dp_accounting
from dp_accounting import rdp as dp_rdp
import pytest

from tests import terms
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accountants
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import bounds as bounds_
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger

Releases = ledger.Releases

DELTA = 1e-5
POISSON = config.Sampling.POISSON
FIXED = config.Sampling.FIXED_SIZE
FULL = config.Sampling.FULL
ADD_REMOVE = config.Relation.ADD_OR_REMOVE_ONE
REPLACE = config.Relation.REPLACE_ONE
ZERO_OUT = config.Relation.ZERO_OUT


def make(sampling, relation=None, *, noise=2.0, size=20, population=200):
  privacy = config.gaussian(
    noise_multiplier=noise,
    clip_norm=0.5,
    delta=DELTA,
    population=population,
    relation=relation,
  )
  cohorts = {
    POISSON: config.poisson(size),
    FIXED: config.fixed_size(size),
    FULL: config.full(),
  }
  return guarantees.build(terms.make(privacy, cohorts[sampling]))


def released(keys, rounds):
  """Returns rounds that all ran under that many noise keys."""
  return Releases(rounds, {r: keys for r in range(1, rounds + 1)})


def price(guaranteed, counts, delta=DELTA):
  return accounting.headline(guaranteed, counts, delta=delta).epsilon


def gaussian(noise):
  return dp_accounting.GaussianDpEvent(noise)


def repeat(event, rounds):
  return dp_accounting.SelfComposedDpEvent(event, rounds)


# The table: bounds of each cell as (relation priced under, event of a round).
# N=200, m=20, z=2.
POISSON_ROUND = dp_accounting.PoissonSampledDpEvent(0.1, gaussian(2.0))
SAMPLED_ROUND = dp_accounting.SampledWithoutReplacementDpEvent(
  200, 20, gaussian(1.0)
)
PRICED = {
  (POISSON, ADD_REMOVE): {
    'poisson': (ADD_REMOVE, POISSON_ROUND),
    'unamplified': (ADD_REMOVE, gaussian(2.0)),
  },
  (POISSON, ZERO_OUT): {
    'poisson': (ADD_REMOVE, POISSON_ROUND),
    'unamplified': (ZERO_OUT, gaussian(2.0)),
  },
  (FIXED, REPLACE): {
    'without_replacement': (REPLACE, SAMPLED_ROUND),
    'unamplified': (REPLACE, gaussian(1.0)),
  },
  (FIXED, ZERO_OUT): {
    'without_replacement': (REPLACE, SAMPLED_ROUND),
    'unamplified': (ZERO_OUT, gaussian(2.0)),
  },
  (FULL, ADD_REMOVE): {'unamplified': (ADD_REMOVE, gaussian(2.0))},
  (FULL, REPLACE): {'unamplified': (REPLACE, gaussian(1.0))},
  (FULL, ZERO_OUT): {'unamplified': (ZERO_OUT, gaussian(2.0))},
}
REFUSED = {(POISSON, REPLACE), (FIXED, ADD_REMOVE)}
CELLS = sorted(PRICED)


@pytest.mark.parametrize('relation', config.Relation)
@pytest.mark.parametrize('sampling', config.Sampling)
def test_every_cell_is_priced_or_refused(sampling, relation):
  if (sampling, relation) in REFUSED:
    with pytest.raises(validate.UsageError, match='--privacy.relation'):
      make(sampling, relation)
    return
  guaranteed = make(sampling, relation)
  assert guaranteed.relation is relation
  bounds = {
    b.name: (b.relation, b.event(Releases(7)).event) for b in guaranteed.bounds
  }
  assert bounds == PRICED[sampling, relation]
  assert 0 < price(guaranteed, 7) < math.inf


@pytest.mark.parametrize(
  'sampling, relation',
  [(POISSON, ADD_REMOVE), (FIXED, REPLACE), (FULL, ADD_REMOVE)],
)
def test_default_relation(sampling, relation):
  assert make(sampling).relation is relation


def test_worked_example():
  # FACTS: N=3383, m=120, z=1.2, T=100; [ran] under dp-accounting 0.4.3.
  def example(sampling, relation=None):
    guaranteed = make(sampling, relation, noise=1.2, size=120, population=3383)
    return {
      (p.bound, p.accountant): p.epsilon
      for p in accounting.prices(guaranteed, 100, delta=DELTA)
    }

  poisson = example(POISSON)
  assert poisson['poisson', 'rdp'] == pytest.approx(1.9861, rel=1e-4)
  assert poisson['poisson', 'pld'] == pytest.approx(1.7075, rel=1e-4)
  fixed = example(FIXED)
  assert fixed['without_replacement', 'rdp'] == pytest.approx(14.094, rel=1e-4)
  assert ('without_replacement', 'pld') not in fixed
  assert fixed['unamplified', 'pld'] == pytest.approx(209.08, rel=1e-4)
  zero_out = example(FIXED, ZERO_OUT)
  assert zero_out['unamplified', 'pld'] == pytest.approx(69.457, rel=1e-4)
  assert min(zero_out.values()) == fixed['without_replacement', 'rdp']


def test_headline_is_the_smallest_price_and_named():
  guaranteed = make(FIXED, noise=4.0, size=190)
  prices = accounting.prices(guaranteed, 50, delta=DELTA)
  best = accounting.headline(guaranteed, 50, delta=DELTA)
  assert best == min(prices, key=lambda p: p.epsilon)
  # At large cohorts, sampling analysis is worse than none.
  assert (best.bound, best.accountant) == ('unamplified', 'pld')
  for name in accounting.ACCOUNTANTS:
    assert accounting.epsilon(
      guaranteed, 50, delta=DELTA, accountant=name
    ) == min(p.epsilon for p in prices if p.accountant == name)


@pytest.mark.parametrize('sampling, relation', CELLS)
def test_n_rounds_are_n_compositions(sampling, relation):
  for bound in make(sampling, relation).bounds:
    accounted = accounting.RELATIONS[bound.relation]
    theirs = dp_rdp.RdpAccountant(neighboring_relation=accounted)
    for _ in range(3):
      theirs.compose(bound.event(Releases(1)))
    ours = accountants.rdp(bound.event(Releases(3)), accounted, delta=DELTA)
    assert ours == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-9)
    one_by_one = dp_accounting.ComposedDpEvent([bound.event(Releases(1))] * 3)
    for accountant in accounting.ACCOUNTANTS.values():
      try:
        together = accountant(bound.event(Releases(3)), accounted, delta=DELTA)
      except dp_accounting.UnsupportedEventError:
        continue
      assert accountant(one_by_one, accounted, delta=DELTA) == together


@pytest.mark.parametrize('sampling, relation', CELLS)
def test_monotone_in_rounds_noise_and_delta(sampling, relation):
  guaranteed = make(sampling, relation)
  by_rounds = [price(guaranteed, rounds) for rounds in (0, 1, 2, 10, 100)]
  assert by_rounds[0] == 0
  assert by_rounds == sorted(by_rounds)
  assert len(set(by_rounds)) == 5
  by_delta = [price(guaranteed, 20, delta) for delta in (1e-8, 1e-5, 1e-3)]
  assert by_delta == sorted(by_delta, reverse=True)
  assert len(set(by_delta)) == 3
  by_noise = [
    price(make(sampling, relation, noise=z), 20) for z in (0, 0.05, 1, 4, 50)
  ]
  assert by_noise[0] == math.inf
  assert by_noise == sorted(by_noise, reverse=True)
  assert len(set(by_noise)) == 5


@pytest.mark.parametrize(
  'sampling, relation', [cell for cell in CELLS if cell[0] is not FULL]
)
def test_a_larger_cohort_is_never_cheaper(sampling, relation):
  prices = [
    price(make(sampling, relation, size=size), 20)
    for size in (1, 20, 180, 199, 200)
  ]
  assert prices == sorted(prices)
  # Everybody, every round, is full participation.
  assert prices[-1] == pytest.approx(price(make(FULL, relation), 20))


@pytest.mark.parametrize('sampling', [FIXED, FULL])
def test_a_stronger_relation_is_never_cheaper(sampling):
  for noise in (0.5, 2.0, 8.0):
    for rounds in (1, 50):
      weaker = price(make(sampling, ZERO_OUT, noise=noise), rounds)
      assert weaker <= price(make(sampling, REPLACE, noise=noise), rounds)


@pytest.mark.parametrize('sampling, relation', CELLS)
def test_replays_under_other_keys(sampling, relation):
  guaranteed = make(sampling, relation)
  doubled = price(guaranteed, released(2, 10))
  # Two releases from one cohort are one with z/sqrt(2), not two rounds.
  less_noise = make(sampling, relation, noise=2.0 / math.sqrt(2))
  assert doubled == pytest.approx(price(less_noise, 10), rel=1e-9)
  assert (
    price(guaranteed, 10)
    < price(guaranteed, Releases(10, {3: 2, 4: 2, 9: 2}))
    < doubled
  )
  assert doubled < price(guaranteed, released(3, 10))
  if sampling is not FULL:
    assert doubled >= price(guaranteed, 20) * (1 - 1e-9)


def test_golden_replays():
  # FACTS: twenty rounds released twice are 4.15; forty rounds would be 2.01.
  guaranteed = make(POISSON, noise=1.0, size=30, population=1000)

  def by_rdp(counts):
    return accounting.epsilon(guaranteed, counts, delta=DELTA, accountant='rdp')

  assert by_rdp(released(2, 20)) == pytest.approx(4.1516, rel=1e-4)
  assert by_rdp(40) == pytest.approx(2.0110, rel=1e-4)


def test_releases_of_one_cohort_are_one_gaussian():
  release = bounds_.Release(name='a', clip_norm=1.0, noise_multiplier=1.0)
  both = bounds_.combined_noise_multiplier((release, release))
  assert both == pytest.approx(2**-0.5)
  silent = bounds_.Release(name='b', clip_norm=1.0, noise_multiplier=0.0)
  assert bounds_.combined_noise_multiplier((release, silent)) == 0


def test_a_price_does_not_depend_on_earlier_ones():
  first = [price(make(POISSON), rounds) for rounds in (3, 17, 40)]
  accountants._one_round.cache_clear()
  accountants._rdp_curve.cache_clear()
  guaranteed = make(POISSON)
  price(guaranteed, Releases(10, {r: 2 for r in range(6, 11)}))
  assert [price(guaranteed, rounds) for rounds in (40, 17, 3)] == first[::-1]


@pytest.mark.parametrize('sampling', config.Sampling)
def test_no_mechanism_is_infinite(sampling):
  cohort = (
    config.full()
    if sampling is FULL
    else config.Cohort(sampling=sampling, clients_per_round=5)
  )
  guaranteed = guarantees.build(terms.make(config.no_privacy(), cohort))
  assert (guaranteed.unit, guaranteed.releases) == (None, ())
  assert isinstance(
    guaranteed.bounds[0].event(Releases(3)).event,
    dp_accounting.NonPrivateDpEvent,
  )
  assert price(guaranteed, 3, None) == math.inf
  assert (
    accounting.epsilon(guaranteed, 3, delta=None, accountant='rdp') == math.inf
  )
  assert price(guaranteed, 0, None) == 0


def test_no_noise_is_infinite():
  for sampling in config.Sampling:
    guaranteed = make(sampling, noise=0.0)
    assert guaranteed.unit == 'user'
    assert price(guaranteed, 1) == math.inf


def test_event_leaves_are_python_numbers():
  # A NumPy leaf inside a sampled event can silently lose releases.
  for sampling, relation in CELLS:
    for bound in make(sampling, relation).bounds:
      leaf = bound.event(released(2, 3)).event
      while not isinstance(leaf, dp_accounting.GaussianDpEvent):
        leaf = leaf.event
      assert type(leaf.noise_multiplier) is float


def test_unsolved_leaves_are_an_error():
  unsolved = config.gaussian(
    clip_norm=1.0, delta=DELTA, population=200, target_epsilon=1.0
  )
  with pytest.raises(ValueError, match='noise_multiplier'):
    guarantees.build(terms.make(unsolved, config.poisson(20)))
  with pytest.raises(ValueError, match='clients_per_round'):
    make(POISSON, size=None)
