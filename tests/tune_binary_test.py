"""The binary as a user meets it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def _run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.tune', *map(str, arguments)],
    cwd=ROOT,
    env=dict(os.environ),
    capture_output=True,
    text=True,
    timeout=400,
  )


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], 'nothing to tune'),
    (['--tune.rounds=5..1'], '--tune.rounds: expected LOW..HIGH'),
    (['--tune.rounds=1..5', '--dry_run'], '--dry_run'),
  ],
)
def test_mistake_is_one_line(arguments, message):
  done = _run('--experiment=quickstart', *arguments)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.count('\n') == 1


@pytest.mark.slow
def test_trials_are_counted_beside_epsilon(tmp_path):
  pytest.importorskip('optuna', reason='the extra `tune` is missing')
  folder = tmp_path / 'tuned'
  wanted = [
    '--experiment=quickstart',
    '--task.model=softmax_regression',
    '--cohort.clients_per_round=6',
    '--rounds=3',
    '--tune.privacy.clip_norm=0.1..3:log',
    f'--output_dir={folder}',
  ]
  done = _run(*wanted, '--trials=2')
  assert done.returncode == 0, done.stderr
  assert 'best of 2 trials' in done.stdout and 'epsilon' in done.stdout
  done = _run(*wanted, '--trials=3')  # One more; the others are kept.
  assert 'best of 3 trials' in done.stdout
  points = json.loads((folder / 'tune.json').read_text())['points']
  assert len(points) == 3
  text = (folder / 'report.html').read_text(encoding='utf-8')
  assert 'Chosen among 3 trials, which no ε here pays for' in text
  assert 'chosen among 3 trials' in text
  refused = _run(*wanted, '--tune.client.epochs=1..2', '--trials=4')
  assert refused.returncode == 2 and '--output_dir' in refused.stderr
