"""A statement holds all that is needed to check it."""

import json
import math

import dp_accounting
from dp_accounting import rdp as dp_rdp
import pytest

from tests import terms
from tff_pipeline import config
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger
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
  released = ledger.Releases(40, {7: 2, 8: 2})
  built = statement.build(
    terms.make(privacy(), config.fixed_size(30)),
    released=released,
    replays={7: 1, 8: 1, 9: 1},
    solved={'leaf': 'rounds', 'value': 40, 'target_epsilon': 9.0},
  )
  guaranteed = guarantees.build(terms.make(privacy(), config.fixed_size(30)))
  best = accounting.headline(guaranteed, released, delta=1e-5)
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
  built = statement.build(
    terms.make(privacy(), config.fixed_size(30)),
    released=ledger.Releases(10, {4: 2, 5: 2}),
  )
  for bound in built['bounds']:
    event = eval(bound['event'], vars(dp_accounting))
    relation = accounting.RELATIONS[config.Relation(bound['priced_under'])]
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
  built = statement.build(terms.make(given, cohort), released=5)
  text = json.dumps(built, allow_nan=False)
  assert json.loads(text) == built
  assert statement.differences(json.loads(text), built) == []


def test_infinity_is_a_word():
  for given in (config.no_privacy(), privacy(noise_multiplier=0.0)):
    built = statement.build(terms.make(given, FULL), released=5)
    assert built['epsilon'] == 'inf'
    assert built['epsilon_rdp'] == 'inf'
    assert built['sentence'].startswith('No differential privacy: epsilon is ')


def test_sentence():
  built = statement.build(terms.make(privacy(), FULL), released=40)
  assert built['sentence'] == (
    'User-level differential privacy with epsilon 7.52 and delta 1e-05 under '
    'adding or removing one client: 40 rounds, full participation (300 '
    'clients), noise multiplier 4 and clip norm 0.5 on each model update (by '
    'PLD).'
  )
  assert built['epsilon'] <= 7.52


def test_sentence_names_sampler_relation_and_replays():
  built = statement.build(
    terms.make(privacy(relation='zero_out'), config.fixed_size(30)),
    released=ledger.Releases(5, {1: 2, 2: 2}),
  )
  assert "zeroing one client's update" in built['sentence']
  assert 'exactly 30 of 300 clients' in built['sentence']
  assert '5 rounds (2 of them released again' in built['sentence']


def test_a_fixed_noise_seed_is_called_a_simulation():
  built = statement.build(terms.make(privacy(noise_seed=7), FULL), released=5)
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
  built = statement.build(terms.make(privacy(), FULL), released=40)
  claimed = built | {'epsilon': built['epsilon'] / 2, 'rounds': 20}
  del claimed['unit']
  found = statement.differences(claimed, built)
  assert [line.split(':')[0] for line in found] == ['epsilon', 'rounds', 'unit']
  rounded_elsewhere = built | {'epsilon': built['epsilon'] * (1 + 1e-13)}
  assert statement.differences(rounded_elsewhere, built) == []
  nested = json.loads(json.dumps(built))
  nested['bounds'][0]['epsilon']['pld'] *= 1.01
  assert len(statement.differences(nested, built)) == 1


def example(mechanism, cohort=None, **leaves):
  """Returns the statement of forty rounds of one mechanism."""
  values = {
    'noise_multiplier': 4.0,
    'clip_norm': 0.5,
    'delta': 1e-5,
    'population': 300,
  }
  if mechanism == 'gaussian_adaptive':
    values |= {
      'target_quantile': 0.5,
      'clip_learning_rate': 0.2,
      'clipped_count_stddev': 5.0,
    }
  given = config.Privacy(mechanism=mechanism, **(values | leaves))
  return statement.build(
    terms.make(given, cohort or config.fixed_size(30), epochs=3), released=40
  )


def test_every_release_of_adaptive_clipping_is_listed():
  built = example('gaussian_adaptive')
  names = [release['name'] for release in built['releases']]
  assert names == ['model_update', 'unclipped_count']
  assert built['combined_noise_multiplier'] == pytest.approx(4.0)
  assert (
    'noise multiplier 10 and clip norm 0.5 on each unclipped count'
    in (built['sentence'])
  )
  assert any('noised count alone' in line for line in built['assumptions'])


@pytest.mark.parametrize('mechanism', ['local', 'dp_sgd'])
def test_figures_of_single_clients(mechanism):
  built = example(mechanism)
  guaranteed = guarantees.build(
    terms.make(
      config.Privacy(
        mechanism=mechanism,
        noise_multiplier=4.0,
        clip_norm=0.5,
        delta=1e-5,
        population=300,
      ),
      config.fixed_size(30),
      epochs=3,
    )
  )
  counts = sorted(
    guaranteed.clients.participations.of_clients(ledger.Releases(40))
  )
  clients = built['clients']
  assert clients['number'] == 300
  assert clients['maximum']['participations'] == counts[-1]
  assert clients['median']['participations'] == counts[150]
  assert clients['maximum']['epsilon'] == built['epsilon']
  assert list(clients['quantiles']) == [f'{q:g}' for q in statement.QUANTILES]
  found = list(clients['quantiles'].values())
  assert [entry['participations'] for entry in found[::6]] == [
    counts[0],
    counts[-1],
  ]
  for entry in found:
    # Sorted values: each quantile's epsilon is that of a client with so many.
    expected = accounting.client_epsilon(
      guaranteed, entry['participations'], delta=1e-5
    )
    assert entry['epsilon'] == expected
  most, median = counts[-1], counts[150]
  assert (
    f'for the client that took part most often, {most} times'
    in (built['sentence'])
  )
  assert f'(the median client: {median} times, epsilon ' in built['sentence']


def test_sentences_of_single_clients_name_what_is_protected():
  assert example('local')['sentence'].startswith(
    'User-level local differential privacy with epsilon 7.52 and delta 1e-05 '
    "under replacing one client's data, for the client that"
  )
  built = example('dp_sgd')
  assert built['sentence'].startswith(
    'Example-level differential privacy with epsilon 6.33 and delta 1e-05 '
    "under zeroing one example's gradients, for the client that"
  )
  assert '3 local epochs a round' in built['sentence']
  assert any('data of its owner' in line for line in built['not_covered'])


def test_two_guarantees_are_two_statements():
  built = example(
    'gaussian', example_noise_multiplier=2.0, example_clip_norm=1.0
  )
  beneath = built['example_level']
  assert list(statement.nested(built)) == ['example_level']
  assert (built['unit'], built['relation']) == ('user', 'replace_one')
  assert (beneath['unit'], beneath['relation']) == ('example', 'zero_out')
  assert built['clients'] is None
  assert beneath['clients']['number'] == 300
  assert beneath['epsilon'] != built['epsilon']
  assert beneath['sentence'].startswith('Example-level')
  assert statement.nested(example('gaussian')) == {}


def test_an_observer_of_sums_has_a_figure_of_its_own():
  built = example('local')
  central = built['central']
  assert 'sums only' in central['sentence']
  assert 'nothing but sums' in central['protected_from']
  assert central['relation'] == 'replace_one'
  assert central['clients'] is None
  assert central['epsilon'] < built['epsilon']
  assert 'central' not in example('local', config.poisson(30))


def test_extrapolated_statements_say_so():
  built = example('gaussian', noise_cohort_size=3000, population=60_000)
  assert built['extrapolated'] is True
  assert built['sentence'].startswith('Extrapolated to larger cohorts, and not')
  assert (built['clients_per_round'], built['noise_cohort_size']) == (30, 3000)
  assert any('as_run is its own' in line for line in built['assumptions'])
  own = built['as_run']
  assert own['extrapolated'] is False
  assert own['epsilon'] > built['epsilon']
  assert example('gaussian')['extrapolated'] is False


@pytest.mark.parametrize('batches', config.Batches)
def test_statement_of_pooled_examples(batches):
  given = config.Privacy(
    mechanism='dp_sgd',
    noise_multiplier=2.0,
    clip_norm=1.0,
    delta=1e-5,
    population=3000,
  )
  built = statement.build(
    terms.centralized(given, batches, epochs=2, batch_size=60), released=4
  )
  assert built['algorithm'] == 'centralized'
  assert built['batches'] == batches
  assert built['protected_from'].endswith('the trainer is trusted')
  assert '4 rounds' in built['sentence']
  assert '100 steps a round' in built['sentence']
  assert 'under adding or removing one example' in built['sentence'] or (
    'under replacing one example' in built['sentence']
  )
  assert any('reveals the batches' in line for line in built['assumptions'])
  # TensorFlow Privacy's optimizers draw noise that has no key.
  unkeyed = any('counted as released again' in s for s in built['assumptions'])
  assert unkeyed is (batches is config.Batches.FIXED_SIZE)


@pytest.mark.parametrize(
  'mechanism, leaves',
  [
    ('gaussian', {}),
    ('gaussian', {'noise_cohort_size': 3000, 'population': 60_000}),
    ('gaussian_adaptive', {}),
    ('local', {}),
    (
      'local',
      {'example_noise_multiplier': 0.0, 'example_clip_norm': 1.0},
    ),
    ('dp_sgd', {}),
    ('dp_sgd', {'noise_multiplier': 0.0}),
  ],
)
def test_all_statements_are_strict_json_and_have_the_same_entries(
  mechanism, leaves
):
  built = example(mechanism, **leaves)
  text = json.dumps(built, allow_nan=False)
  assert statement.differences(json.loads(text), built) == []
  nested = statement.nested(built)
  assert built.keys() - nested.keys() == example('gaussian').keys()
  for part in (built, *nested.values()):
    assert part['neighbours'] and part['protected_from']
    for bound in part['bounds']:
      event = eval(bound['event'], vars(dp_accounting))
      relation = accounting.RELATIONS[config.Relation(bound['priced_under'])]
      for name, value in bound['epsilon'].items():
        again = accounting.ACCOUNTANTS[name](event, relation, delta=1e-5)
        assert float(value) == again


def test_quantiles_between_clients_are_those_of_the_busier_one():
  built = statement.build(
    terms.make(
      config.Privacy(
        mechanism='local',
        noise_multiplier=4.0,
        clip_norm=0.5,
        delta=1e-5,
        population=2,
      ),
      config.fixed_size(1),
    ),
    released=1,
  )
  quantiles = built['clients']['quantiles']
  assert [q['participations'] for q in quantiles.values()] == [0] + [1] * 6
  assert quantiles['0']['epsilon'] == 0
  assert built['clients']['median']['epsilon'] == built['epsilon'] > 0


def test_what_preparation_computed_without_noise_is_not_covered():
  plain, more = (
    statement.build(
      terms.make(privacy(), config.poisson(30)), released=5, uncovered=found
    )
    for found in ((), ('feature means',))
  )
  assert more['not_covered'] == [*plain['not_covered'], 'feature means']
