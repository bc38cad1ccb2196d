"""Attacks and compression in whole runs: what they do, and what is refused."""

import csv
import dataclasses
import json

import pytest

from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.experiment import building

pytestmark = pytest.mark.usefixtures('without_reports')


def _experiment(**changes):
  whole = {
    'task': config.Task(
      name='digits', model='softmax_regression', partition='iid', clients=40
    ),
    'cohort': config.fixed_size(20),
    'client': config.Client(epochs=3, batch_size=10, learning_rate=1.0),
    'server': config.Server(learning_rate=1.0),
    'privacy': config.no_privacy(),
    'rounds': 6,
    'evaluate_every': 3,
  }
  return config.Experiment(**whole | changes)


def _run(folder, **changes):
  summary = experiment.run(_experiment(**changes), folder)
  with open(folder / 'metrics.csv', encoding='utf-8') as file:
    return summary, list(csv.DictReader(file))


_BACKDOOR = config.Attack(
  name='backdoor', share=0.3, scale=1.0, target_label=3, triggered_share=0.5
)


def test_backdoor_succeeds_beside_a_good_accuracy(tmp_path):
  honest, _ = _run(
    tmp_path / 'nobody',
    attack=config.Attack(
      name='backdoor', share=0, scale=1, target_label=3, triggered_share=0.5
    ),
  )
  attacked, rows = _run(tmp_path / 'attacked', attack=_BACKDOOR)
  assert honest['test']['attack_success'] < 0.3
  assert attacked['test']['attack_success'] > 0.7
  assert attacked['test']['accuracy'] > 0.75
  assert (
    float(rows[-1]['test_attack_success'])
    == (attacked['test']['attack_success'])
  )


def test_reversed_updates_break_the_mean_and_not_the_median(tmp_path):
  attack = config.Attack(name='sign_flip', share=0.25, scale=10.0)
  accuracy = {
    name: _run(
      tmp_path / name,
      attack=attack,
      algorithm=config.Algorithm(aggregator=name),
    )[0]['test']['accuracy']
    for name in ('mean', 'median')
  }
  assert accuracy['mean'] < 0.5
  assert accuracy['median'] > 0.8


def test_clip_of_a_mechanism_binds_the_dishonest_too(tmp_path):
  attack = config.Attack(name='scaled_update', share=0.25, scale=1e4)
  privacy = config.gaussian(
    noise_multiplier=0.0, clip_norm=0.5, delta=1e-3, population=40
  )
  summary, _ = _run(tmp_path, attack=attack, privacy=privacy)
  assert summary['test']['accuracy'] > 0.6


def test_bytes_and_clients_are_in_row_and_summary(tmp_path):
  summary, rows = _run(
    tmp_path,
    compression=config.Compression(name='top_k', kept_share=0.1),
    evaluate_clients_every=3,
  )
  up = 65 * (32 + 10) // 8 + 1 + 4  # 650 weights in softmax regression.
  assert {(r['bytes_up'], r['bytes_down']) for r in rows} == {
    (f'{up}', f'{4 * 650}')
  }
  sent = summary['communication']
  assert sent['expected_megabytes'] == pytest.approx(6 * 20 * (up + 2600) / 1e6)
  assert sent['accuracy_per_megabyte'] == pytest.approx(
    summary['test']['accuracy'] / sent['expected_megabytes']
  )
  column = 'unnoised_client_train_accuracy_worst_decile'
  assert [r[column] == 'nan' for r in rows] == [True, True, False] * 2
  assert float(rows[-1][column]) == summary['clients'][column]
  found = summary['clients']
  prefix = 'unnoised_client_train_accuracy_'
  ordered = [
    found[prefix + name] for name in ('worst_decile', 'p10', 'mean', 'p90')
  ]
  assert ordered == sorted(ordered)
  assert 'clients' in json.loads((tmp_path / 'summary.json').read_text())


@pytest.mark.parametrize(
  'changes, flag',
  [
    ({'attack': {'name': 'label_flip', 'share': 0.1}}, 'attack.source_label'),
    (
      {'attack': {'name': 'sign_flip', 'share': 0.1, 'scale': 0}},
      'attack.scale',
    ),
    ({'attack': {'share': 0.1}}, 'attack.share'),
    ({'compression': {'bits': 3}}, 'compression.bits'),
    ({'compression': {'broadcast_bits': 0}}, 'compression.broadcast_bits'),
    ({'evaluate_clients_every': 4}, 'evaluate_clients_every'),
    (
      {
        'compression': {'name': 'top_k', 'kept_share': 0.5},
        'privacy': {
          'mechanism': 'local',
          'noise_multiplier': 1.0,
          'clip_norm': 1.0,
          'delta': 1e-3,
          'population': 40,
        },
      },
      'privacy.mechanism',
    ),
  ],
)
def test_refused_before_data_loads(changes, flag):
  values = config.to_dict(_experiment())
  with pytest.raises(validate.UsageError, match=f'^--{flag}: expected '):
    config.from_dict(values | changes)


def test_label_that_does_not_exist_is_refused(tmp_path):
  attack = config.Attack(
    name='label_flip', share=0.1, source_label=1, target_label=10
  )
  with pytest.raises(validate.UsageError, match='^--attack.target_label: '):
    experiment.run(_experiment(attack=attack), tmp_path)


def test_trigger_that_is_the_largest_value_of_the_data_is_not_covered():
  """It reaches the examples of dishonest clients from those of others."""
  attacked = building.build(_experiment(attack=_BACKDOOR), noise_key=(1, 2))
  assert any('trigger' in clause for clause in attacked.task.uncovered)
  honest = building.build(_experiment(), noise_key=(1, 2))
  assert not honest.task.uncovered


def test_attack_that_takes_noise_off_is_refused_under_local_privacy():
  """What holds against an observer of sums counts the noise of everybody."""
  local = config.Privacy(
    mechanism='local',
    noise_multiplier=2.0,
    clip_norm=1.0,
    delta=1e-3,
    population=40,
  )
  attack = config.Attack(name='sign_flip', share=0.5, scale=0.01)
  with pytest.raises(validate.UsageError, match='--attack.scale: .*1 or more'):
    _experiment(privacy=local, attack=attack)
  _experiment(privacy=local, attack=dataclasses.replace(attack, scale=1.0))
