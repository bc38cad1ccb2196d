"""The binary as a user meets it."""

import json
import pathlib
import shlex
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests import small_runs

ROOT = pathlib.Path(__file__).parents[1]
NOISES = '--sweep.privacy.noise_multiplier=0,2'
SMALL = (
  '--experiment=quickstart',
  '--task.model=softmax_regression',
  '--cohort.clients_per_round=6',
  '--checkpoint_every=2',
)


def _command(*arguments):
  return [sys.executable, '-m', 'experiments.sweep', *map(str, arguments)]


def _run(*arguments, cwd=ROOT, timeout=300):
  return subprocess.run(
    _command(*arguments),
    cwd=cwd,
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def test_dry_run_prices_every_arm_and_writes_nothing(tmp_path):
  done = _run(
    '--experiment=quickstart',
    NOISES,
    '--seeds=3',
    '--dry_run',
    '--noprobe',
    f'--output_dir={tmp_path / "sweep"}',
  )
  assert (done.returncode, done.stderr) == (0, '')
  lines = [line.split() for line in done.stdout.splitlines()]
  assert lines[1][:4] == ['noise_multiplier=0', '3', '40', 'inf']
  assert lines[2][:3] == ['noise_multiplier=2', '3', '40']
  assert 4.0 < float(lines[2][3]) < 5.0
  assert not (tmp_path / 'sweep').exists()


def test_emitted_lines_are_commands_of_train(tmp_path):
  folder = tmp_path / 'sweep'
  done = _run(
    *SMALL,
    NOISES,
    '--seeds=2',
    '--emit=shell',
    f'--output_dir={folder}',
  )
  assert done.returncode == 0
  lines = [shlex.split(line) for line in done.stdout.splitlines()]
  assert len(lines) == 4
  for line in lines:
    assert line[:4] == [
      'python',
      '-m',
      'experiments.train',
      '--experiment=quickstart',
    ]
    assert '--cohort.clients_per_round=6' in line
  directories = [line[-1].removeprefix('--output_dir=') for line in lines]
  record = json.loads((folder / 'sweep.json').read_text())
  assert directories == [
    f'{folder}/{arm["directory"]}' for arm in record['arms']
  ]


def test_runs_stop_at_the_accuracy_of_the_sweep(tmp_path):
  folder = tmp_path / 'sweep'
  done = _run(
    '--experiment=mcmahan_2017_cnn',
    '--stop_at_accuracy=0.99',
    '--emit=shell',
    f'--output_dir={folder}',
  )
  assert done.returncode == 0, done.stderr
  lines = [shlex.split(line) for line in done.stdout.splitlines()]
  assert lines
  assert all('--stop_at_accuracy=0.99' in line for line in lines)


def test_experiment_file_may_hold_the_sweep(tmp_path):
  (tmp_path / 'mine.py').write_text(
    textwrap.dedent(
      """
      from experiments.quickstart import CONFIG
      from tff_pipeline.sweeps import design
      SWEEP = design.zipped(
        {'privacy.noise_multiplier': (1, 2), 'privacy.clip_norm': (0.5, 1)},
        seeds=2,
      )
      """
    )
  )
  package = tmp_path / 'mine_package'
  package.mkdir()
  (tmp_path / 'mine.py').rename(package / 'mine.py')
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'experiments.sweep',
      '--experiment=mine_package.mine',
      '--dry_run',
      '--noprobe',
    ],
    cwd=ROOT,
    env={'PYTHONPATH': str(tmp_path), 'PATH': ''},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  arms = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
  assert arms == [
    ['noise_multiplier=1,clip_norm=0.5', '2'],
    ['noise_multiplier=2,clip_norm=1', '2'],
  ]


BAD = [
  ([], 'nothing to sweep'),
  (['--sweep.privacy.noise_multiplier=0,x'], 'expected a number, found x'),
  (['--sweep.rounds=1,2', '--rounds=3'], 'beside --sweep.rounds'),
  (['--sweep.rounds=1,2', '--zip=rounds,seed'], '--zip'),
  (['--sweep.rounds=1,1'], 'values that differ'),
  (['--sweep.cohort.clients_per_round=5,361'], 'arm clients_per_round=361'),
  (['--sweep.rounds=1,2'], '--output_dir'),
  (['--seeds=2', '--stop_at_accuracy=97'], '--stop_at_accuracy'),
  (['--seeds=2', '--stop_at_accuracy=0.97'], 'would be no guarantee'),
  (['--sweep.privacy.relation=replace_one'], 'privacy.relation'),
]


@pytest.mark.parametrize('arguments, message', BAD)
def test_mistake_is_one_line_before_anything_runs(tmp_path, arguments, message):
  output = (
    [f'--output_dir={tmp_path / "s"}'] if message != '--output_dir' else []
  )
  done = _run('--experiment=quickstart', *arguments, *output)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.count('\n') == 1
  assert not (tmp_path / 's').exists()


@pytest.mark.slow
def test_interrupted_sweep_ends_as_an_uninterrupted_one(tmp_path):
  """With a noise seed, so that noise is the same in both."""
  wanted = [*SMALL, NOISES, '--rounds=60', '--privacy.noise_seed=3']
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  assert _run(*wanted, f'--output_dir={whole}').returncode == 0
  started = subprocess.Popen(
    _command(*wanted, f'--output_dir={cut}'),
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )
  deadline = time.monotonic() + 90
  while not list(cut.glob('*/*/metrics.csv')) and time.monotonic() < deadline:
    time.sleep(0.05)
  started.send_signal(signal.SIGINT)
  _, told = started.communicate(timeout=60)
  assert started.returncode == 130 and 'continues' in told
  assert _run(*wanted, f'--output_dir={cut}').returncode == 0
  for name in ('noise_multiplier=0', 'noise_multiplier=2'):
    ours, theirs = (
      small_runs.rows(folder / name / 'seed=0') for folder in (whole, cut)
    )
    assert len(ours) == 60
    small_runs.assert_same_rows(ours, theirs)
  assert (cut / 'report.html').exists()


@pytest.mark.slow
def test_pairs_share_cohorts_weights_and_partition_but_not_noise(tmp_path):
  done = _run(
    *SMALL,
    '--sweep.privacy.noise_multiplier=1.9,2',
    '--seeds=2',
    '--rounds=2',
    f'--output_dir={tmp_path / "s"}',
  )
  assert done.returncode == 0, done.stderr
  runs = {
    (noise, seed): tmp_path / 's' / f'noise_multiplier={noise}/seed={seed}'
    for noise in (1.9, 2)
    for seed in (0, 1)
  }

  def column(run, name):
    return [row[name] for row in small_runs.rows(runs[run])]

  shared = ('unnoised_cohort_size', 'unnoised_train_num_examples')
  for name in shared:
    for seed in (0, 1):
      assert column((1.9, seed), name) == column((2, seed), name)
    assert column((2, 0), name) != column((2, 1), name)
  # The first round trains from the same weights, on the same shuffles.
  for seed in (0, 1):
    ours, theirs = (
      column((noise, seed), 'unnoised_train_loss') for noise in (1.9, 2)
    )
    assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=1e-5)
    assert float(ours[1]) != pytest.approx(float(theirs[1]), rel=1e-5)
  keys = {(path / 'noise_key').read_text() for path in runs.values()}
  assert len(keys) == 4


@pytest.mark.slow
def test_failed_arm_stops_nobody(tmp_path):
  folder = tmp_path / 's'
  obstacle = folder / 'noise_multiplier=0' / 'seed=0'
  done = _run(*SMALL, NOISES, '--emit=shell', f'--output_dir={folder}')
  assert done.returncode == 0
  obstacle.mkdir(parents=True)
  (obstacle / 'thesis.tex').touch()
  done = _run(*SMALL, NOISES, '--rounds=40', f'--output_dir={folder}')
  assert done.returncode == 1
  assert 'failed: noise_multiplier=0/seed=0 (exit status 2)' in done.stderr
  assert 'thesis.tex' in done.stderr
  assert (folder / 'noise_multiplier=2/seed=0/summary.json').exists()
  text = (folder / 'report.html').read_text()
  assert '1 planned runs do not exist yet' in text
