"""A statement holds all that is needed to check it."""

import json
import math

import dp_accounting
from dp_accounting import rdp as dp_rdp
import pytest

from tff_pipeline import config
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import statement

FULL = config.full()


def privacy(**leaves):
  return config.gaussian(
    **(
      {
        'noise_multiplier': 4.0,
        'clip_norm': 0.5,
        'delta': 1e-5,
        'population': 300,
      }
      | leaves
    )
  )


def test_statement_of_a_run():
  built = statement.build(
    privacy(),
    config.fixed_size(30),
    counts={1: 38, 2: 2},
    replays={7: 1, 8: 1, 9: 1},
    solved={'leaf': 'rounds', 'value': 40, 'target_epsilon': 9.0},
  )
  guaranteed = accounting.guarantee(privacy(), config.fixed_size(30))
  best = accounting.headline(guaranteed, {1: 38, 2: 2}, delta=1e-5)
  expected = {
    'mechanism': 'gaussian',
    'unit': 'user',
    'relation': 'replace_one',
    'epsilon': best.epsilon,
    'delta': 1e-5,
    'sampling': 'fixed_size',
    'population': 300,
    'clients_per_round': 30,
    'releases': [
      {'name': 'model_update', 'clip_norm': 0.5, 'noise_multiplier': 4.0}
    ],
    'rounds': 40,
    'rounds_by_noise_keys': {'1': 38, '2': 2},
    'attempts_replayed': {'7': 1, '8': 1, '9': 1},
    'solved': {'leaf': 'rounds', 'value': 40, 'target_epsilon': 9.0},
    'accounting': 'dp-accounting 0.4.3',
    'extrapolated': False,
    'simulation': None,
  }
  assert {name: built[name] for name in expected} == expected
  assert built['headline']['accountant'] == best.accountant
  assert built['headline']['bound'] == best.bound
  assert built['epsilon'] == min(built['epsilon_pld'], built['epsilon_rdp'])
  assert any('seed in config.json' in line for line in built['assumptions'])
  assert any('unnoised_' in line for line in built['not_covered'])


def test_events_in_a_statement_price_to_what_it_says():
  built = statement.build(privacy(), config.fixed_size(30), counts={1: 8, 2: 2})
  for bound in built['bounds']:
    event = eval(bound['event'], vars(dp_accounting))
    relation = accounting._RELATIONS[config.Relation(bound['priced_under'])]
    theirs = dp_rdp.RdpAccountant(neighboring_relation=relation)
    assert bound['epsilon']['rdp'] == pytest.approx(
      theirs.compose(event).get_epsilon(built['delta'])
    )


@pytest.mark.parametrize(
  'given, cohort',
  [
    (config.no_privacy(), FULL),
    (config.no_privacy(), config.poisson(9)),
    (privacy(noise_multiplier=0.0), FULL),
    (privacy(noise_seed=7), config.poisson(30)),
    (privacy(), FULL),
  ],
)
def test_statements_are_strict_json(given, cohort):
  built = statement.build(given, cohort, counts=5)
  text = json.dumps(built, allow_nan=False)
  assert json.loads(text) == built
  assert statement.differences(json.loads(text), built) == []


def test_infinity_is_a_word():
  for given in (config.no_privacy(), privacy(noise_multiplier=0.0)):
    built = statement.build(given, FULL, counts=5)
    assert built['epsilon'] == 'inf'
    assert built['epsilon_rdp'] == 'inf'
    assert built['sentence'].startswith('No differential privacy: epsilon is ')


def test_sentence():
  built = statement.build(privacy(), FULL, counts=40)
  assert built['sentence'] == (
    'User-level differential privacy with epsilon 7.52 and delta 1e-05 under '
    'adding or removing one client: 40 rounds, full participation (300 '
    'clients), noise multiplier 4 and clip norm 0.5 on each model update (by '
    'PLD).'
  )
  assert built['epsilon'] <= 7.52


def test_sentence_names_sampler_relation_and_replays():
  built = statement.build(
    privacy(relation='zero_out'), config.fixed_size(30), counts={1: 3, 2: 2}
  )
  assert "zeroing one client's update" in built['sentence']
  assert 'exactly 30 of 300 clients' in built['sentence']
  assert '5 rounds (2 of them released again' in built['sentence']


def test_a_fixed_noise_seed_is_called_a_simulation():
  built = statement.build(privacy(noise_seed=7), FULL, counts=5)
  assert built['sentence'].startswith('In a reproducible simulation, user-')
  assert 'not a private release' in built['simulation']


@pytest.mark.parametrize(
  'epsilon, text',
  [
    (0.0, '0'),
    (1.7071, '1.71'),
    (1.7001, '1.71'),
    (9.999, '10'),
    (99.91, '100'),
    (14.094, '14.1'),
    (2.0, '2'),
    (208.2, '209'),
    (123456.7, '123457'),
    (0.00401, '0.00401'),
    (0.004011, '0.00402'),
    (math.inf, 'inf'),
  ],
)
def test_shown_epsilon_is_never_too_small(epsilon, text):
  assert statement.shown(epsilon) == text
  assert float(text) >= epsilon


def test_differences_are_named():
  built = statement.build(privacy(), FULL, counts=40)
  claimed = built | {'epsilon': built['epsilon'] / 2, 'rounds': 20}
  del claimed['unit']
  found = statement.differences(claimed, built)
  assert [line.split(':')[0] for line in found] == ['epsilon', 'rounds', 'unit']
  rounded_elsewhere = built | {'epsilon': built['epsilon'] * (1 + 1e-13)}
  assert statement.differences(rounded_elsewhere, built) == []
  nested = json.loads(json.dumps(built))
  nested['bounds'][0]['epsilon']['pld'] *= 1.01
  assert len(statement.differences(nested, built)) == 1
