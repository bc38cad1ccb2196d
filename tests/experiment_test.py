"""What one uninterrupted run writes, and what it refuses."""

import inspect
import json
import logging
import math
import os
import pathlib
import random
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import digits
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import noise_key as noise_keys
from tff_pipeline.report import writing


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts():
    yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  experiment.run(small_runs.build(), folder, argv=['train', '--seed=0'])
  return folder


def _json(folder, name):
  return json.loads((folder / name).read_text(encoding='utf-8'))


def test_rows_hold_what_was_promised(whole):
  rows = small_runs.rows(whole)
  assert [row['round'] for row in rows] == list('123456')
  for name in ('test_loss', 'test_accuracy', 'epsilon'):
    found = [row[name] == 'nan' for row in rows]
    assert found == [True, False] * 3, name
  prices = [float(row['epsilon_rdp']) for row in rows]
  assert prices == sorted(set(prices))
  header = (whole / 'metrics.csv').read_text().splitlines()[0].split(',')
  assert header[:4] == [
    'round',
    'unnoised_cohort_size',
    'epsilon',
    'epsilon_rdp',
  ]
  assert {'clip_norm', 'unnoised_train_loss', *small_runs.TIMINGS} <= {*header}


def test_everything_measured_on_clients_without_noise_says_so(whole):
  covered = {
    'round',
    'epsilon',
    'epsilon_rdp',
    'clip_norm',
    'released_update_norm',
    'noise_norm',
  }
  covered |= {'bytes_up', 'bytes_down'}  # Public: shapes decide them.
  for name in small_runs.rows(whole)[0]:
    assert name.startswith(('unnoised_', 'test_')) or name in covered, name


def test_cohort_sizes_are_those_of_the_sampler(whole):
  wanted = small_runs.build()
  parts = experiment.build(
    wanted, noise_key=noise_keys.from_seed(wanted.privacy.noise_seed)
  )
  sizes = [len(parts.sampler(r)) for r in range(1, 7)]
  found = [float(r['unnoised_cohort_size']) for r in small_runs.rows(whole)]
  assert found == sizes
  assert len(set(sizes)) > 1  # Poisson cohorts vary.


def test_ledger_has_each_round_once(whole):
  fingerprint = noise_keys.fingerprint(noise_keys.from_seed(7))
  assert small_runs.ledger(whole) == [(r, 1, fingerprint) for r in range(1, 7)]


def test_statement_is_that_of_the_last_round(whole):
  summary = _json(whole, 'summary.json')
  statement = _json(whole, 'privacy.json')
  assert summary['privacy'] == statement
  assert (summary['rounds'], summary['status']) == (6, experiment.FINISHED)
  assert statement['rounds'] == 6
  last = small_runs.rows(whole)[-1]
  assert float(last['epsilon']) == statement['epsilon']
  assert float(last['epsilon_rdp']) == statement['epsilon_rdp']
  assert float(last['test_accuracy']) == summary['test']['accuracy']


def test_config_json_records_how_to_do_it_again(whole):
  record = _json(whole, 'config.json')
  assert config.from_dict(record['config']) == small_runs.build()
  assert record['argv'] == ['train', '--seed=0']
  assert record['versions'] == experiment.versions()
  assert record['versions']['tensorflow-federated'] == '0.87.0'
  assert 'git_revision' in record


def test_saved_model_gives_the_accuracy_of_the_summary(whole):
  model = tf.keras.models.load_model(whole / 'model')
  task = small_runs.build().task
  test = digits.load(task, data_dir=pathlib.Path()).test
  found = np.mean(np.argmax(model(test.x), axis=1) == test.y)
  accuracy = _json(whole, 'summary.json')['test']['accuracy']
  assert found == pytest.approx(accuracy, abs=1e-6)
  assert 0.15 < accuracy < 1.0  # Above chance: something was learned.


def test_directory_holds_these_names_and_nothing_of_the_machine(whole):
  assert {p.name for p in whole.iterdir()} == {
    'checkpoints',
    'config.json',
    'ledger',
    'lock',
    'metrics.csv',
    'model',
    'privacy.json',
    'summary.json',
    'report.html',
    'tensorboard',
  }
  checkpoints = sorted(p.name for p in (whole / 'checkpoints').iterdir())
  assert checkpoints == ['round_2', 'round_4', 'round_6']
  home = os.fspath(pathlib.Path.home())
  assert home not in (whole / 'summary.json').read_text()


def test_finished_run_started_again_says_so_and_changes_nothing(whole, caplog):
  before = small_runs.snapshot(whole)
  with caplog.at_level(logging.INFO, logger='tff_pipeline'):
    summary = experiment.run(small_runs.build(), whole, max_epsilon=0.1)
  assert 'finished already' in caplog.text
  assert summary == _json(whole, 'summary.json')
  assert small_runs.snapshot(whole) == before


def test_changed_config_is_refused_naming_the_leaves(whole):
  before = small_runs.snapshot(whole)
  changed = small_runs.build(
    rounds=7, client=config.Client(batch_size=11, learning_rate=0.2)
  )
  with pytest.raises(validate.UsageError) as refused:
    experiment.run(changed, whole)
  assert '--rounds was 6, now 7' in str(refused.value)
  assert '--client.batch_size was 10, now 11' in str(refused.value)
  assert '--client.learning_rate' not in str(refused.value)
  assert small_runs.snapshot(whole) == before


def test_description_has_what_is_needed_to_believe_it(whole):
  text = experiment.describe(_json(whole, 'summary.json'), whole)
  for words in (
    'accuracy 0.',
    'at delta 0.001 (PLD; by RDP',
    'one user: all data of one client is added or removed',
    'Poisson cohorts (60 clients, each by its own coin; 6 expected)',
    '6 (finished)',
    'tensorflow-federated 0.87.0',
    os.fspath(whole),
    'In a reproducible simulation, user-level differential privacy',
  ):
    assert words in text


def test_noise_key_is_drawn_kept_secret_and_decides_the_noise(
  tmp_path, monkeypatch
):
  unused = list(small_runs.KEYS)
  monkeypatch.setattr(noise_keys, 'draw', lambda: unused.pop(0))
  unseeded = small_runs.build(
    rounds=1, privacy=small_runs.privacy(noise_seed=None)
  )
  folders = tmp_path / 'one', tmp_path / 'other'
  for folder, key in zip(folders, small_runs.KEYS, strict=True):
    summary = experiment.run(unseeded, folder)
    assert summary['privacy']['simulation'] is None
    path = folder / 'noise_key'
    assert path.stat().st_mode & 0o777 == 0o600
    assert noise_keys.from_text(path.read_text()) == key
    _assert_key_is_nowhere_else(folder, key)
  one, other = (small_runs.rows(folder)[0] for folder in folders)
  assert one['unnoised_train_loss'] == other['unnoised_train_loss']
  assert one['test_loss'] != other['test_loss']


def _assert_key_is_nowhere_else(folder, key):
  """It is in the checkpoints, which resume the noise, and in its own file."""
  secrets = [noise_keys.to_text(key), *map(str, key)]
  for path in folder.rglob('*'):
    private = path.name == 'noise_key' or 'checkpoints' in path.parts
    if path.is_file() and not private:
      content = path.read_bytes()
      assert not [s for s in secrets if s.encode() in content], path


def test_no_privacy_is_infinite_everywhere(tmp_path):
  summary = experiment.run(
    small_runs.build(privacy=config.no_privacy(), rounds=2), tmp_path
  )
  assert summary['privacy']['epsilon'] == 'inf'
  assert {row['epsilon_rdp'] for row in small_runs.rows(tmp_path)} == {'inf'}
  assert not (tmp_path / 'noise_key').exists()
  assert {entry[2] for entry in small_runs.ledger(tmp_path)} == {
    ledgers.NO_NOISE
  }
  text = experiment.describe(summary, tmp_path)
  assert 'infinite' in text
  assert 'nobody' in text


def _population_mismatch(monkeypatch):
  task = tasks.build(
    config.Task(name='digits', partition='iid', clients=50), seed=0
  )
  monkeypatch.setattr(tasks, 'build', lambda *args, **kwargs: task)
  return {'experiment': small_runs.build(seed=1)}  # Not in the cache.


_REFUSED = {
  'privacy.population': _population_mismatch,
  'task.name': lambda _: {
    'experiment': small_runs.build(task=config.Task(name='digit'))
  },
  'task.clients': lambda _: {
    'experiment': small_runs.build(
      task=config.Task(name='digits', partition='iid', clients=1438),
      privacy=small_runs.privacy(population=1438, delta=1e-4),
    )
  },
  'privacy.relation': lambda _: {
    'experiment': small_runs.build(
      privacy=small_runs.privacy(relation='replace_one')
    )
  },
  'max_epsilon': lambda _: {'max_epsilon': math.nan},
  'max_epsilon ': lambda _: {'max_epsilon': -1.0},
  'max_epsilon  ': lambda _: {'max_epsilon': 1e-3},
}


@pytest.mark.parametrize('flag', _REFUSED)
def test_refused_run_leaves_no_trace(tmp_path, monkeypatch, flag):
  arguments = {'experiment': small_runs.build()} | _REFUSED[flag](monkeypatch)
  with pytest.raises(validate.UsageError) as refused:
    experiment.run(output_dir=tmp_path / 'run', **arguments)
  assert str(refused.value).startswith(f'--{flag.strip()}: ')
  assert not (tmp_path / 'run').exists()


def test_nothing_global_is_seeded_or_left_changed(tmp_path):
  def snapshot():
    kind, words, *rest = np.random.get_state()
    return (
      (kind, words.tolist(), *rest),
      context.global_seed(),
      tf.random.get_global_generator().state.numpy().tolist(),
      [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
      os.getcwd(),
    )

  before = snapshot()
  drawn = random.getstate()
  new = small_runs.build(rounds=1, seed=2)  # Builds and trains: not cached.
  experiment.run(new, tmp_path)
  assert snapshot() == before
  assert before[1] is None
  # Temporary names are drawn from Python's generator, so it moves on, but by
  # drawing alone.
  assert _is_ahead(random.getstate(), drawn)


def _is_ahead(state, earlier):
  """Whether a generator gets from one state to another by a few draws."""
  generator = random.Random()
  generator.setstate(earlier)
  for _ in range(10_000):
    if generator.getstate() == state:
      return True
    generator.getrandbits(32)
  return False


def test_run_takes_no_other_arguments():
  """A new one may change results: then it belongs into the config."""
  assert list(inspect.signature(experiment.run).parameters) == [
    'experiment',
    'output_dir',
    'data_dir',  # Where the data lies, not what it is.
    'max_epsilon',
    'stop_at_accuracy',
    'argv',
  ]


@pytest.mark.slow
def test_engines_write_the_same_run(whole, tmp_path):
  experiment.run(small_runs.build(engine='tff_runtime'), tmp_path)
  small_runs.assert_same_rows(small_runs.rows(whole), small_runs.rows(tmp_path))


def test_report_holds_the_statement(whole):
  text = (whole / 'report.html').read_text(encoding='utf-8')
  assert _json(whole, 'privacy.json')['sentence'] in text
  accuracy = _json(whole, 'summary.json')['test']['accuracy']
  assert f'{accuracy:.4f}' in text
  for panel in ('learning', 'clipping', 'signal_to_noise', 'time'):
    assert f'<figure id="{panel}">' in text


def test_report_that_fails_does_not_fail_the_run(tmp_path, monkeypatch, caplog):
  def fail(folder):
    raise RuntimeError(f'no fonts in {folder}')

  monkeypatch.setattr(writing, 'write_run', fail)
  with caplog.at_level(logging.WARNING, logger='tff_pipeline'):
    summary = experiment.run(small_runs.build(rounds=1), tmp_path)
  assert summary['status'] == experiment.FINISHED
  assert 'No report was written' in caplog.text
  assert 'experiments.report' in caplog.text
  assert not (tmp_path / 'report.html').exists()


def test_released_norms_are_covered_and_clipped_share_is_not(whole):
  header = (whole / 'metrics.csv').read_text().splitlines()[0].split(',')
  assert {'released_update_norm', 'noise_norm'} <= set(header)
  assert 'unnoised_clipped_share' in header


def test_extrapolated_epsilon_is_named_so_in_every_row(tmp_path):
  wanted = small_runs.build(
    rounds=1,
    privacy=small_runs.privacy(
      noise_cohort_size=60, population=6000, delta=1e-4
    ),
  )
  summary = experiment.run(wanted, tmp_path)
  [row] = small_runs.rows(tmp_path)
  assert not {'epsilon', 'epsilon_rdp'} & row.keys()
  assert float(row['extrapolated_epsilon']) == summary['privacy']['epsilon']
  assert 'extrapolated' in experiment.describe(summary, tmp_path)
