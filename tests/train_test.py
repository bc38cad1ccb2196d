"""The binary as a user meets it: exits, messages, signals, crashes, pipes."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_SMALL = (
  '--experiment=quickstart',
  '--task.model=softmax_regression',
  '--cohort.clients_per_round=6',
  '--privacy.noise_seed=3',
  '--evaluate_every=1',
  '--checkpoint_every=3',
)
_TIMINGS = {'round_seconds', 'clients_per_second', 'rss_mb'}


def _command(*flags):
  return [sys.executable, '-m', 'experiments.train', *flags]


def _run(*flags, timeout=120):
  return subprocess.run(
    _command(*flags),
    cwd=_ROOT,
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def _start(*flags):
  return subprocess.Popen(
    _command(*flags),
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _wait_for_round(folder, round_num, process, timeout=90):
  deadline = time.monotonic() + timeout
  path = folder / 'metrics.csv'
  while time.monotonic() < deadline:
    if path.exists() and len(path.read_text().splitlines()) > round_num:
      return
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.02)
  raise AssertionError(f'round {round_num} was not reached')


def _rows(folder):
  with open(folder / 'metrics.csv', encoding='utf-8') as file:
    return [
      {k: v for k, v in row.items() if k not in _TIMINGS}
      for row in csv.DictReader(file)
    ]


def _assert_gone(processes):
  _, alive = psutil.wait_procs(processes, timeout=10)
  assert not alive


_BAD = [
  (['--experiment=quickstrat'], 'experiment'),
  (['--task.name=digit'], 'task.name'),
  (['--task.model=mlpp'], 'task.model'),
  (['--cohort.clients_per_round=361'], 'cohort.clients_per_round'),
  (['--privacy.noise_multiplier=-1'], 'privacy.noise_multiplier'),
  (['--privacy.noise_multiplier=nan'], 'privacy.noise_multiplier'),
  (['--client.learning_rate=nan'], 'client.learning_rate'),
  (['--rounds=-3'], 'rounds'),
  (['--rounds=many'], 'rounds'),
  (['--privacy.delta=0.01'], 'privacy.delta'),
  (['--privacy.clip_norm=inf'], 'privacy.clip_norm'),
  (['--algorithm.weighting=num_examples'], 'algorithm.weighting'),
  (['--privacy.population=300'], 'privacy.population'),
  (['--privacy.noise_multiplyer=1'], 'privacy.noise_multipl'),
  (['stray'], 'stray'),
]


@pytest.mark.parametrize(
  ('flags', 'named'), _BAD, ids=[flags[0] for flags, _ in _BAD]
)
def test_bad_input_is_one_line_and_leaves_no_trace(tmp_path, flags, named):
  folder = tmp_path / 'run'
  first = [] if flags[0].startswith('--experiment') else [_SMALL[0]]
  done = _run(*first, *flags, f'--output_dir={folder}', timeout=20)
  assert done.returncode == 2, done.stderr
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert named in done.stderr
  assert done.stdout == ''
  assert not folder.exists()


@pytest.mark.parametrize('kind', ['missing', 'file', 'below_a_file', 'foreign'])
def test_bad_output_dir_is_refused_and_untouched(tmp_path, kind):
  flags = list(_SMALL)
  if kind == 'file':
    (tmp_path / 'run').write_text('mine')
  if kind == 'below_a_file':
    (tmp_path / 'a').write_text('mine')
  if kind == 'foreign':
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'thesis.txt').write_text('mine')
  if kind != 'missing':
    place = 'a/run' if kind == 'below_a_file' else 'run'
    flags.append(f'--output_dir={tmp_path / place}')
  before = sorted(p.name for p in tmp_path.rglob('*'))
  done = _run(*flags, timeout=20)
  assert done.returncode == 2
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert 'output_dir' in done.stderr
  assert sorted(p.name for p in tmp_path.rglob('*')) == before


def test_help_is_fast():
  started = time.monotonic()
  done = _run('--help')
  seconds = time.monotonic() - started
  assert done.returncode == 0
  assert '--privacy.noise_multiplier' in done.stdout
  # Under a second on an idle machine; tests may share theirs.
  assert seconds < 4


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An uninterrupted run, read through a pipe."""
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  flags = [*_SMALL, '--rounds=25', f'--output_dir={folder}']
  shell = ' '.join(_command(*flags)) + ' 2>&1 | cat'
  done = subprocess.run(
    shell, shell=True, cwd=_ROOT, capture_output=True, text=True, timeout=120
  )
  return folder, done.stdout


def test_output_says_what_matters(whole):
  _, text = whole
  for word in (
    'accuracy',
    'epsilon',
    'delta',
    'one user',
    'Poisson',
    'rounds:',
    'tensorflow-federated',
    'round 25/25',
    'left=',
  ):
    assert word in text, text
  assert 'WARNING' not in text


def test_kill_9_and_resume_equals_an_uninterrupted_run(whole, tmp_path):
  flags = [*_SMALL, '--rounds=25', f'--output_dir={tmp_path}']
  for round_num in (4, 11):
    process = _start(*flags)
    _wait_for_round(tmp_path, round_num, process)
    process.kill()
    process.wait()
  done = _run(*flags)
  assert done.returncode == 0, done.stderr
  assert 'Continuing after round' in done.stderr
  assert _rows(tmp_path) == _rows(whole[0])
  ours, theirs = (
    json.loads((folder / 'summary.json').read_text())
    for folder in (tmp_path, whole[0])
  )
  assert ours['test'] == theirs['test']
  assert ours['privacy']['epsilon'] == theirs['privacy']['epsilon']
  assert ours['privacy']['attempts_replayed']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_round_and_says_how_to_resume(
  whole, tmp_path, number
):
  flags = [*_SMALL, '--rounds=25', f'--output_dir={tmp_path}']
  process = _start(*flags)
  _wait_for_round(tmp_path, 2, process)
  process.send_signal(number)
  _, stderr = process.communicate(timeout=60)
  if process.returncode == 0:
    pytest.skip('the run was over before the signal came')
  assert process.returncode == 130
  assert 'Run the same command again' in stderr
  completed = len(_rows(tmp_path))
  assert (tmp_path / 'checkpoints' / f'round_{completed}').exists()


@pytest.mark.parametrize(
  'ending', ['end', 'kill', pytest.param('interrupt', marks=pytest.mark.slow)]
)
def test_no_worker_survives(tmp_path, ending):
  rounds = 2 if ending == 'end' else 200
  process = _start(
    *_SMALL,
    f'--rounds={rounds}',
    '--engine=tff_runtime',
    f'--output_dir={tmp_path}',
  )
  _wait_for_round(tmp_path, 1, process)
  workers = [
    p
    for p in psutil.Process(process.pid).children(recursive=True)
    if 'worker_binary' in p.name()
  ]
  if ending == 'kill':
    assert len(workers) == 1
    process.kill()
  if ending == 'interrupt':
    process.send_signal(signal.SIGINT)
  # Returns when nobody holds the pipes any more: a worker would, for ever.
  process.communicate(timeout=60)
  _assert_gone(workers)


def test_nothing_listens_on_the_network(tmp_path):
  process = _start(*_SMALL, '--rounds=200', f'--output_dir={tmp_path}')
  try:
    _wait_for_round(tmp_path, 1, process)
    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True)
    assert len(family) == 1
    listening = [
      c
      for p in family
      for c in p.net_connections(kind='inet')
      if c.status == psutil.CONN_LISTEN
    ]
    assert listening == []
  finally:
    process.kill()
    process.communicate()


def test_second_process_in_one_directory_is_refused(tmp_path):
  flags = [*_SMALL, '--rounds=2000', f'--output_dir={tmp_path}']
  process = _start(*flags)
  try:
    _wait_for_round(tmp_path, 1, process)
    done = _run(*flags)
    assert done.returncode == 2
    assert 'locked' in done.stderr
  finally:
    process.kill()
    process.communicate()
  # The lock of the dead process does not keep the next one out.
  again = _start(*flags)
  try:
    rows = len(_rows(tmp_path))
    time.sleep(1)
    _wait_for_round(tmp_path, rows + 1, again)
  finally:
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
  assert os.path.exists(tmp_path / 'ledger')
