import json
import math

import numpy as np
import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.report import reading


def test_load_gives_each_round_its_epsilon_and_what_it_is_about(tmp_path):
  for seed in (0, 1):
    wanted = synthetic_runs.build(seed=seed)
    synthetic_runs.write(tmp_path / f'seed={seed}', wanted, accuracy=0.6)
  frame = reading.load(tmp_path)
  assert list(frame['run']) == ['seed=0'] * 6 + ['seed=1'] * 6
  assert list(frame['round']) == [1, 2, 3, 4, 5, 6] * 2
  assert set(frame['relation']) == {'add_or_remove_one'}
  assert set(frame['unit']) == {'user'} and set(frame['delta']) == {1e-3}
  assert not frame['extrapolated'].any()
  assert frame['epsilon'].iloc[5] == pytest.approx(
    float(reading.read(tmp_path / 'seed=0').statement['epsilon'])
  )
  assert set(frame['privacy.noise_multiplier']) == {1.0}
  assert frame['test_accuracy'].iloc[5] == pytest.approx(0.6)


def test_infinite_epsilon_is_a_number(tmp_path):
  wanted = synthetic_runs.build(privacy=config.no_privacy())
  run = reading.read(synthetic_runs.write(tmp_path / 'run', wanted))
  assert run.epsilon == math.inf
  frame = reading.load(tmp_path / 'run')
  assert np.isinf(frame['epsilon']).all()
  assert frame['relation'].isna().all()


def test_unfinished_run_is_priced_from_its_ledger(tmp_path):
  wanted = synthetic_runs.build()
  whole = reading.read(synthetic_runs.write(tmp_path / 'whole', wanted))
  path = synthetic_runs.write(tmp_path / 'part', wanted, rounds=3)
  with open(path / 'ledger', 'a') as ledger:  # It has started a fourth.
    entry = {'round': 4, 'attempt': 1, 'noise_key': 'abcd'}
    ledger.write(json.dumps(entry) + '\n')
  part = reading.read(path)
  assert (part.status, part.rounds) == ('unfinished', 3)
  assert part.statement['rounds'] == 4
  assert 0 < part.epsilon < whole.epsilon


def test_run_without_any_round_is_read(tmp_path):
  path = synthetic_runs.write(
    tmp_path / 'run', synthetic_runs.build(), rounds=0
  )
  for name in ('metrics.csv', 'ledger'):
    (path / name).unlink()
  run = reading.read(path)
  assert (run.rounds, run.epsilon) == (0, 0.0)


def test_row_that_a_crash_cut_short_is_left_out(tmp_path):
  path = synthetic_runs.write(
    tmp_path / 'run', synthetic_runs.build(), rounds=3
  )
  with open(path / 'metrics.csv', 'a') as file:
    file.write('4,6,0.1')
  assert reading.read(path).rounds == 3


def test_solved_leaf_takes_the_place_of_its_target(tmp_path):
  path = synthetic_runs.write(tmp_path / 'run', synthetic_runs.build())
  record = json.loads((path / 'config.json').read_text())
  record['config']['privacy'].pop('noise_multiplier')
  record['config']['privacy']['target_epsilon'] = 3.0
  record['solved'] = {
    'leaf': 'privacy.noise_multiplier',
    'value': 1.0,
    'target_epsilon': 3.0,
  }
  (path / 'config.json').write_text(json.dumps(record))
  leaves = reading.read(path).leaves
  assert leaves['privacy.noise_multiplier'] == 1.0
  assert 'privacy.target_epsilon' not in leaves


def test_planned_runs_that_do_not_exist_are_missing(tmp_path):
  synthetic_runs.write(tmp_path / 'a' / 'seed=0', synthetic_runs.build())
  arms = [{'directory': 'a/seed=0'}, {'directory': 'a/seed=1'}]
  (tmp_path / 'sweep.json').write_text(json.dumps({'arms': arms}))
  collection = reading.collect([tmp_path])
  assert [run.name for run in collection.runs] == ['a/seed=0']
  assert collection.missing == ('a/seed=1',)


def test_runs_are_in_the_order_of_numbers_and_read_once(tmp_path):
  for seed in (0, 2, 10):
    wanted = synthetic_runs.build(seed=seed, rounds=1)
    synthetic_runs.write(tmp_path / f'seed={seed}', wanted)
  found = reading.collect([tmp_path, tmp_path / 'seed=2'])
  assert [run.leaves['seed'] for run in found.runs] == [0, 2, 10]


@pytest.mark.parametrize(
  'name, text',
  [
    ('config.json', '{'),
    ('config.json', '[]'),
    ('config.json', '{"format": 1}'),
    ('summary.json', 'no'),
    ('metrics.csv', 'round,x\n1,a\n'),
    ('metrics.csv', 'round,x\n1,2,3\n'),
  ],
)
def test_file_that_cannot_be_read_is_named(tmp_path, name, text):
  path = synthetic_runs.write(tmp_path / 'run', synthetic_runs.build(rounds=1))
  (path / name).write_text(text)
  with pytest.raises(validate.UsageError, match=name):
    reading.read(path)


def test_directory_without_runs_is_refused(tmp_path):
  with pytest.raises(validate.UsageError, match='expected a run directory'):
    reading.collect([tmp_path])


@pytest.mark.parametrize(
  'metric, expected',
  [
    ('test_accuracy', True),
    ('test_f1', True),
    ('test_loss', False),
    ('test_mean_squared_error', False),
    ('test_closest', True),
  ],
)
def test_direction_of_a_metric(metric, expected):
  assert reading.is_higher_better(metric) is expected
