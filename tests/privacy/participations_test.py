"""Participations are those of the cohorts that the sampler draws."""

import time

import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline.privacy import ledger
from tff_pipeline.privacy import participations

COHORTS = {
  'poisson': config.poisson(6),
  'fixed_size': config.fixed_size(6),
  'full': config.full(),
}


def make(name, *, population=20, seed=3):
  return participations.Participations(
    COHORTS[name], population=population, seed=seed
  )


def by_hand(name, rounds, keys=(), *, population=20, seed=3):
  """Every cohort, client by client."""
  sample = sampling.build(COHORTS[name], population=population, seed=seed)
  counts = [0] * population
  for round_num in range(1, rounds + 1):
    for client in sample(round_num):
      counts[client] += dict(keys).get(round_num, 1)
  return counts


@pytest.mark.parametrize('name', COHORTS)
@pytest.mark.parametrize('repeated', [{}, {2: 2, 7: 3}])
def test_counts_are_those_of_the_sampler(name, repeated):
  released = ledger.Releases(9, repeated)
  expected = by_hand(name, 9, repeated)
  assert make(name).of_clients(released).tolist() == expected
  assert make(name).most(released) == max(expected)


@pytest.mark.parametrize('name', COHORTS)
def test_the_order_of_questions_does_not_matter(name):
  forwards = [make(name, seed=8).most(ledger.Releases(r)) for r in range(12)]
  participations._tally.cache_clear()
  backwards = [
    make(name, seed=8).most(ledger.Releases(r)) for r in reversed(range(12))
  ]
  assert forwards == backwards[::-1]
  assert forwards[0] == 0
  assert np.all(np.diff(forwards) >= 0)


def test_counts_given_away_are_not_shared():
  tally = make('fixed_size')
  tally.of_clients(ledger.Releases(4))[:] = 99
  assert tally.most(ledger.Releases(4)) == max(by_hand('fixed_size', 4))
  assert tally.most(ledger.Releases(5)) == max(by_hand('fixed_size', 5))


def test_another_seed_is_another_history():
  one, other = (
    make('fixed_size', seed=s).of_clients(ledger.Releases(9)) for s in (1, 2)
  )
  assert one.sum() == other.sum() == 9 * 6
  assert not np.array_equal(one, other)


def test_a_price_after_every_round_is_cheap():
  tally = participations.Participations(
    config.poisson(100), population=100_000, seed=0
  )
  start = time.process_time()
  for rounds in range(1, 1001):
    tally.most(ledger.Releases(rounds))
  assert time.process_time() - start < 2.0  # 0.05 s measured.
