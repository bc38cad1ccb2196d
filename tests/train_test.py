"""The binary as a user meets it: exits, messages, signals, crashes, pipes."""

import json
import logging
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment

_ROOT = pathlib.Path(__file__).parents[1]
_ROUNDS = 30
_SMALL = (
  '--experiment=quickstart',
  '--task.model=softmax_regression',
  '--cohort.clients_per_round=6',
  '--privacy.noise_seed=3',
  '--evaluate_every=1',
  '--checkpoint_every=3',
  f'--rounds={_ROUNDS}',
)


# What TensorFlow sets when this process imports it is not a user's.
_ENVIRONMENT = {
  name: value
  for name, value in os.environ.items()
  if not name.startswith(('TF_', 'GRPC_'))
}


_WORKER = ('--engine=tff_runtime',)


def _command(*flags):
  return [sys.executable, '-m', 'experiments.train', *flags]


def _run(*flags, timeout=120, **options):
  return subprocess.run(
    _command(*flags),
    cwd=_ROOT,
    env=_ENVIRONMENT,
    capture_output=True,
    text=True,
    timeout=timeout,
    **options,
  )


def _start(*flags):
  return subprocess.Popen(
    _command(*flags),
    cwd=_ROOT,
    env=_ENVIRONMENT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _num_rows(folder):
  path = folder / 'metrics.csv'
  return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def _wait_for_round(folder, round_num, process, timeout=90):
  deadline = time.monotonic() + timeout
  while time.monotonic() < deadline:
    if _num_rows(folder) >= round_num:
      return
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.02)
  raise AssertionError(f'round {round_num} was not reached')


def _assert_gone(processes):
  _, alive = psutil.wait_procs(processes, timeout=10)
  assert not alive


_BAD = [
  (['--experiment=quickstrat'], '--experiment: .*Did you mean quickstart'),
  (['--task.name=digit'], '--task.name: '),
  (['--task.model=mlpp'], '--task.model: '),
  (['--cohort.clients_per_round=361'], '--cohort.clients_per_round: '),
  (['--cohort.clients_per_round=-1'], '--cohort.clients_per_round: '),
  (['--privacy.noise_multiplier=-1'], '--privacy.noise_multiplier: '),
  (['--privacy.noise_multiplier=nan'], '--privacy.noise_multiplier: '),
  (['--client.learning_rate=nan'], '--client.learning_rate: '),
  (['--server.learning_rate=-0.1'], '--server.learning_rate: '),
  (['--rounds=-3'], '--rounds: '),
  (['--rounds=many'], '--rounds='),
  (['--seed=-1'], '--seed: '),
  (['--privacy.delta=0.01'], '--privacy.delta: .*1/360'),
  (['--privacy.delta=nan'], '--privacy.delta: '),
  (['--privacy.clip_norm=inf'], '--privacy.clip_norm: '),
  (['--privacy.clip_norm=0'], '--privacy.clip_norm: '),
  (['--algorithm.weighting=num_examples'], '--algorithm.weighting: '),
  (['--privacy.population=300'], '--privacy.population: '),
  (['--privacy.relation=replace_one'], '--privacy.relation: '),
  (['--max_epsilon=nan'], '--max_epsilon: '),
  (['--max_epsilon=-1'], '--max_epsilon: '),
  (['--privacy.noise_multiplyer=1'], 'Did you mean: privacy.noise_multiplier'),
  (['stray'], "'stray'"),
]


def _seconds_of_children():
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def _assert_refused(*flags, match, seconds=3.0):
  """Asserts a one-line answer, before TensorFlow loads."""
  before = _seconds_of_children()
  done = _run(*flags, timeout=60)
  # Processor time: a busy machine does not count. TensorFlow alone takes more.
  assert _seconds_of_children() - before < seconds
  assert done.returncode == 2, done.stderr
  assert done.stdout == ''
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert done.stderr.startswith('error: ')
  assert re.search(match, done.stderr), done.stderr


@pytest.mark.parametrize(
  ('flags', 'match'), _BAD, ids=[flags[0] for flags, _ in _BAD]
)
def test_bad_input_is_one_line_and_leaves_no_trace(tmp_path, flags, match):
  folder = tmp_path / 'run'
  first = [] if flags[0].startswith('--experiment') else [_SMALL[0]]
  _assert_refused(*first, *flags, f'--output_dir={folder}', match=match)
  assert not folder.exists()


def test_limit_below_the_first_round_leaves_no_trace(tmp_path):
  folder = tmp_path / 'run'
  flags = [*_SMALL, '--max_epsilon=0.001', f'--output_dir={folder}']
  # Pricing by PLD takes its time, but no TensorFlow.
  _assert_refused(*flags, match='--max_epsilon: .*round 1', seconds=4.0)
  assert not folder.exists()


@pytest.mark.parametrize(
  'place',
  [
    '',
    'file',
    'file/run',
    'foreign',
    'dangling',
    pytest.param('x' * 300, id='long'),
  ],
)
def test_bad_output_dir_is_refused_and_untouched(tmp_path, place):
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'foreign').mkdir()
  (tmp_path / 'foreign' / 'thesis.txt').write_text('mine')
  (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere')
  before = sorted(tmp_path.rglob('*'))
  flags = [f'--output_dir={tmp_path / place}'] if place else []
  _assert_refused(*_SMALL, *flags, match='--output_dir: ')
  assert sorted(tmp_path.rglob('*')) == before


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An uninterrupted run: its folder, and what came through a pipe.

  The pipe ends when nobody holds it any more: a worker would, for ever.
  """
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  command = ' '.join(_command(*_SMALL, *_WORKER, f'--output_dir={folder}'))
  done = subprocess.run(
    f'{command} 2>&1 | cat',
    shell=True,
    cwd=_ROOT,
    env=_ENVIRONMENT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  return folder, done.stdout


def test_output_says_what_matters(whole):
  folder, text = whole
  for words in (
    f'round 1/{_ROUNDS} loss=',
    f'round {_ROUNDS}/{_ROUNDS} loss=',
    'clients/s=',
    'left=00:00',
    'accuracy',
    'epsilon',
    'delta 0.0001',
    'one user',
    'Poisson',
    f'{_ROUNDS} (finished)',
    'tensorflow-federated',
    os.fspath(folder),
  ):
    assert words in text, text
  for noise in ('WARNING', 'Traceback', 'Exception', 'cuda', 'None'):
    assert noise not in text, text


def test_finished_run_and_changed_config_need_no_tensorflow(whole):
  folder, _ = whole
  before = small_runs.snapshot(folder)
  done = _run(*_SMALL, *_WORKER, f'--output_dir={folder}')
  assert done.returncode == 0
  assert 'finished already; nothing was changed' in done.stderr
  assert 'accuracy' in done.stdout
  _assert_refused(
    *_SMALL,
    *_WORKER,
    '--seed=8',
    f'--output_dir={folder}',
    match='--output_dir: .*--seed was 0, now 8',
  )
  assert small_runs.snapshot(folder) == before


def test_killed_and_interrupted_run_equals_an_uninterrupted_one(
  whole, tmp_path, caplog
):
  flags = [*_SMALL, *_WORKER, f'--output_dir={tmp_path}']
  process, workers = _start_with_worker(tmp_path, flags)
  _assert_refused(*flags, match='--output_dir: .*locked')
  _wait_for_round(tmp_path, 5, process)
  process.kill()
  process.communicate(timeout=10)
  _assert_gone(workers)
  assert not (tmp_path / 'summary.json').exists()

  # The dead process does not keep the lock.
  process, workers = _start_with_worker(tmp_path, flags)
  process.send_signal(signal.SIGINT)
  completed, told = _assert_interrupted(process, tmp_path)
  assert 'Continuing after round ' in told
  _assert_gone(workers)

  # In this process, which has TensorFlow already.
  record = json.loads((tmp_path / 'config.json').read_text())
  caplog.set_level(logging.INFO, logger='tff_pipeline')
  experiment.run(config.from_dict(record['config']), tmp_path)
  assert f'Continuing after round {completed}.' in caplog.text
  small_runs.assert_same_rows(
    small_runs.rows(tmp_path), small_runs.rows(whole[0])
  )
  ours, theirs = (
    json.loads((folder / 'summary.json').read_text())
    for folder in (tmp_path, whole[0])
  )
  assert ours['test'] == pytest.approx(theirs['test'], rel=small_runs.TOLERANCE)
  assert ours['privacy'].pop('attempts_replayed')
  assert theirs['privacy'].pop('attempts_replayed') == {}
  assert ours['privacy'] == theirs['privacy']


def _start_with_worker(folder, flags):
  process = _start(*flags)
  _wait_for_round(folder, _num_rows(folder) + 1, process)
  family = psutil.Process(process.pid).children(recursive=True)
  workers = [p for p in family if p.name() == 'worker_binary']
  assert len(workers) == 1
  # It holds none of the run's pipes, and a terminal's Ctrl-C passes it by.
  for number in (0, 1, 2):
    held = os.readlink(f'/proc/{workers[0].pid}/fd/{number}')
    assert not held.startswith('pipe:')
  assert os.getsid(workers[0].pid) != os.getsid(process.pid)
  return process, workers


def _assert_interrupted(process, folder):
  """Asserts that a signal ended it well; returns last round and stderr."""
  stdout, stderr = process.communicate(timeout=60)
  assert process.returncode == 130, stderr
  assert stdout == ''
  completed = _num_rows(folder)
  assert stderr.splitlines()[-1] == (
    f'stopped after round {completed} of {_ROUNDS}; everything is saved. Run '
    'the same command again to continue.'
  )
  assert (folder / 'checkpoints' / f'round_{completed}').is_dir()
  return completed, stderr


@pytest.mark.slow
def test_sigterm_ends_as_well_as_ctrl_c(tmp_path):
  flags = [*_SMALL, *_WORKER, f'--output_dir={tmp_path}']
  process, workers = _start_with_worker(tmp_path, flags)
  process.send_signal(signal.SIGTERM)
  _assert_interrupted(process, tmp_path)
  _assert_gone(workers)


@pytest.mark.slow
def test_engine_in_this_process_listens_to_nobody(tmp_path):
  process = _start(*_SMALL, f'--output_dir={tmp_path}')
  _wait_for_round(tmp_path, 1, process)
  program = psutil.Process(process.pid)
  assert program.children(recursive=True) == []
  listening = [
    connection
    for connection in program.net_connections(kind='inet')
    if connection.status == psutil.CONN_LISTEN
  ]
  assert listening == []
  process.kill()
  process.communicate()


@pytest.mark.slow
def test_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path):
  flags = [*_SMALL, '--rounds=3', f'--output_dir={tmp_path}']

  def limit_file_size():
    # Enough for rows, not for a checkpoint.
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))

  done = _run(*flags, preexec_fn=limit_file_size)
  assert done.returncode == 1, done.stderr
  assert 'Traceback' not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith('error: ')
  assert f'What was saved in {tmp_path} is safe' in last
  rows = small_runs.rows(tmp_path)
  assert len(rows) == 3


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing(whole, tmp_path):
  """From the first second on: while it imports, claims, compiles and trains."""
  flags = [*_SMALL, *_WORKER, f'--output_dir={tmp_path}']
  moments = random.Random()
  delays = []
  while not (tmp_path / 'summary.json').exists() and len(delays) < 8:
    delays.append(moments.uniform(0.2, 12.0))
    process = _start(*flags)
    time.sleep(delays[-1])
    process.kill()
    process.communicate()
  done = _run(*flags)
  assert done.returncode == 0, (delays, done.stderr)
  small_runs.assert_same_rows(
    small_runs.rows(tmp_path), small_runs.rows(whole[0])
  )
