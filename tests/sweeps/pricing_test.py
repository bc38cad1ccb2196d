import math

import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import guarantees
from tff_pipeline.sweeps import design
from tff_pipeline.sweeps import pricing
from tff_pipeline.sweeps import view

NOISE = 'privacy.noise_multiplier'


def _prices(sweep, **changes):
  runs = design.plan(sweep, synthetic_runs.build(**changes))
  return runs, pricing.prices(runs)


def test_price_is_the_headline_of_the_run():
  runs, prices = _prices(design.grid({NOISE: (0.0, 1.0, 2.0)}, seeds=2))
  for run, price in zip(runs, prices, strict=True):
    terms = config.terms(run.experiment)
    expected = accounting.headline(guarantees.build(terms), 6, delta=1e-3)
    assert price.epsilon == expected.epsilon
    assert price.rounds == 6
  assert math.isinf(prices[0].epsilon)


def test_target_is_solved_before_anything_trains():
  _, prices = _prices(design.grid({'privacy.target_epsilon': (1.0, 2.0)}))
  for price, target in zip(prices, (1.0, 2.0), strict=True):
    assert price.epsilon <= target
    assert price.epsilon == pytest.approx(target, rel=2e-3)
    assert price.solved[0] == NOISE


def test_solved_rounds_are_the_planned_ones():
  base = synthetic_runs.build(
    privacy=synthetic_runs.privacy(target_epsilon=2.0, solve_for='rounds'),
    rounds=None,
  )
  (price,) = pricing.prices(design.plan(design.grid({NOISE: (1.0,)}), base))
  assert price.solved == ('rounds', price.rounds) and price.rounds > 1


def test_seed_matters_only_where_clients_have_their_own_price(monkeypatch):
  priced = []
  original = accounting.headline

  def counted(*args, **kwargs):
    priced.append(args)
    return original(*args, **kwargs)

  monkeypatch.setattr(accounting, 'headline', counted)
  _prices(design.grid({NOISE: (1.0,)}, seeds=4))
  assert len(priced) == 1
  local = config.Privacy(
    mechanism='local',
    noise_multiplier=1.0,
    clip_norm=0.5,
    delta=1e-3,
    population=60,
  )
  priced.clear()
  _, prices = _prices(
    design.grid({NOISE: (3.0,)}, seeds=6), privacy=local, rounds=20
  )
  assert len(priced) == 6
  assert len({price.epsilon for price in prices}) > 1


def _rows(seconds, evaluate=0.0):
  return [
    {
      'whole_seconds': s,
      'evaluate_seconds': evaluate if i == len(seconds) - 1 else 0.0,
      'price_seconds': 0.0,
      'rss_mb': 100.0 + i,
    }
    for i, s in enumerate(seconds)
  ]


def test_estimate_leaves_out_the_round_that_compiles():
  probe = pricing.probe(20.0, _rows([9.0, 1.0, 1.0, 1.0]), evaluate_every=1)
  assert probe.estimate(4) == 20.0
  assert probe.estimate(104) == pytest.approx(120.0)
  assert probe.bytes == 103 * 2**20


def test_estimate_has_evaluations_as_often_as_they_are():
  rows = _rows([9.0, 1.0, 1.0, 3.0], evaluate=2.0)
  probe = pricing.probe(20.0, rows, evaluate_every=10)
  assert probe.seconds_a_round == pytest.approx(1.2)


def test_noise_changes_no_time_and_cohorts_do():
  runs, _ = _prices(design.grid({NOISE: (1.0, 2.0)}, seeds=2))
  assert len({pricing.kind(run) for run in runs}) == 1
  runs, _ = _prices(design.grid({'cohort.clients_per_round': (5, 6)}))
  assert len({pricing.kind(run) for run in runs}) == 2


def test_table_names_what_epsilon_is_about():
  larger = synthetic_runs.extrapolated()
  runs, prices = _prices(design.grid({NOISE: (1.0,)}), privacy=larger)
  table = view.price_table(runs, prices, probes=None).splitlines()
  assert table[0].split()[:4] == ['arm', 'seeds', 'rounds', 'epsilon']
  assert 'user-level, add_or_remove_one, delta 1e-05, extrapolated' in table[1]
  runs, prices = _prices(design.grid({NOISE: (0.0,)}))
  assert ' inf ' in view.price_table(runs, prices, probes=None)
