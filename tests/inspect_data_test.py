"""The binary as it is called; what it prints is in docs/your_data.md, too."""

import math
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import inspect_data
from tff_pipeline.privacy import statement

ROOT = pathlib.Path(__file__).parents[1]


def _run(*arguments, without_tensorflow=False):
  program = [sys.executable, '-m', 'experiments.inspect_data']
  if without_tensorflow:
    block = (
      'import runpy, sys; sys.modules["tensorflow"] = None; '
      'runpy.run_module("experiments.inspect_data", run_name="__main__", '
      'alter_sys=True)'
    )
    program = [sys.executable, '-c', block]
  return subprocess.run(
    [*program, *arguments],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )


def test_experiment_is_looked_at_without_tensorflow(tmp_path):
  done = _run(
    '--experiment=quickstart',
    f'--output_dir={tmp_path}',
    without_tensorflow=True,
  )
  assert done.returncode == 0, done.stderr
  assert '360 clients, 1,437 training examples.' in done.stdout
  assert '--privacy.population=360' in done.stdout
  assert {path.name for path in tmp_path.iterdir()} == {
    'clients.png',
    'labels.png',
    'examples.png',
    'privacy.png',
  }


@pytest.mark.parametrize(
  'arguments, said',
  [
    (['--task.name=digitz'], 'Did you mean digits?'),
    (['--task.name=digits'], '--task.partition: expected one of iid'),
    (['--task.name=digits', '--cohort.sampling=full'], 'no value without'),
    (['--task.name=csv', '--task.path=no.csv'], 'expected '),
  ],
)
def test_mistakes_are_one_line(arguments, said):
  done = _run(*arguments, without_tensorflow=True)
  assert done.returncode == 2
  assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_stand_in_says_so():
  done = _run('--task.name=heart_disease', '--task.source=stand_in')
  assert done.returncode == 0, done.stderr
  assert 'synthetic stand-in, not the real data' in done.stdout


@pytest.mark.parametrize('population', [1, 2, 9, 10, 99, 100, 360, 342_477])
def test_delta_is_the_largest_power_of_ten_below(population):
  delta = inspect_data.sensible_delta(population)
  assert delta < 1 / population <= 10 * delta * (1 + 1e-9)
  assert math.log10(delta) == pytest.approx(round(math.log10(delta)))


@pytest.mark.parametrize('population', [1, 2, 10, 360, 342_477])
def test_cohorts_are_below_the_population(population):
  found = inspect_data.cohorts(population)
  assert len(found) <= 6 and all(size < population for size in found)
  assert bool(found) is (population > 1)


def test_epsilon_is_that_of_experiments_epsilon():
  # docs/privacy.md: 40 rounds, 120 of 360 clients, z=3, delta=1e-4.
  found = inspect_data.epsilons(
    360, noise_multiplier=3.0, sizes=[120], rounds=40, delta=1e-4
  )
  assert statement.shown(found[120]) == '3.04'
