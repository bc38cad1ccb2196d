"""Tests for experiments.cli: each runs a small binary in its own process."""

import pathlib
import resource
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BINARIES = sorted(
  path.stem
  for path in (ROOT / 'experiments').glob('*.py')
  if 'cli.run' in path.read_text()
)

BINARY = '''
"""A binary for tests."""
import os
import sys
from experiments import cli
from absl import flags

cli.define_experiment()
OUTPUT = flags.DEFINE_string('output_dir', None, 'Where results go.')

def main():
  print(cli.read_experiment().seed, os.environ['TF_CPP_MIN_LOG_LEVEL'])
  print(*sorted(sys.modules))
  {body}

if __name__ == '__main__':
  cli.run(main)
'''
EXPERIMENT = """
from tff_pipeline import config as c
CONFIG = c.Experiment(
  task=c.Task(name='digits'),
  cohort=c.full(),
  client=c.Client(batch_size=10, learning_rate=0.1),
  server=c.Server(learning_rate=1.0),
  privacy=c.no_privacy(),
  rounds=3,
  seed=11,
)
"""


@pytest.fixture(name='run')
def fixture_run(tmp_path):
  package = tmp_path / 'mine'
  package.mkdir()
  (package / 'good.py').write_text(EXPERIMENT)
  (package / 'empty.py').write_text('')
  (package / 'broken.py').write_text('import no_such_package')

  def run(*arguments, body='return None'):
    (tmp_path / 'binary.py').write_text(BINARY.format(body=body))
    return subprocess.run(
      [sys.executable, tmp_path / 'binary.py', *arguments],
      env={'PYTHONPATH': f'{ROOT}:{tmp_path}', 'PATH': ''},
      capture_output=True,
      text=True,
      check=False,
    )

  return run


def test_run_reads_the_experiment_and_loads_nothing_heavy(run):
  done = run('--experiment=mine.good')
  assert (done.returncode, done.stderr) == (0, '')
  values, modules = done.stdout.splitlines()
  assert values == '11 3'
  assert not set(modules.split()) & {'tensorflow', 'dp_accounting', 'numpy'}


def test_flag_wins_over_the_experiment(run):
  assert run('--experiment=mine.good', '--seed=4').stdout.startswith('4 ')


@pytest.mark.parametrize(
  'arguments, part',
  [
    (['--experiment=mine.good', '--rounds=x'], '--rounds=x: expected a whole'),
    (['--experiment=mine.good', '--rounds=0'], '--rounds: expected a finite'),
    (['--rounds'], 'Missing value for flag --rounds'),
    (['--privacy.noise_multiplyer=1'], 'Did you mean: privacy.noise_multipl'),
    (['--learning_rate=1'], 'mean: client.learning_rate, server.learning_rate'),
    (['rounds=3'], "unexpected argument 'rounds=3'"),
    (['--flagfile=/no/such/file'], '/no/such/file'),
    (['--experiment=nonsense'], '--experiment: expected one of'),
    (['--experiment=mine.nonsense'], '--experiment: expected an importable'),
    (['--experiment=no.such.one'], '--experiment: expected an importable'),
    (['--experiment=mine.empty'], '--experiment: expected a module with CONF'),
    ([], '--task.name: expected a value'),
  ],
)
def test_usage_error_is_one_line_and_status_2(run, arguments, part):
  done = run(*arguments)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith('error: ') and part in done.stderr
  assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
  'body, status',
  [('return 3', 3), ('raise KeyboardInterrupt', 130), ('sys.exit(4)', 4)],
)
def test_exit_status(run, body, status):
  done = run('--experiment=mine.good', body=body)
  assert (done.returncode, done.stderr) == (status, '')


def test_a_bug_keeps_its_traceback(run):
  done = run('--experiment=mine.good', body='raise ValueError("a bug")')
  assert done.returncode == 1 and 'Traceback' in done.stderr


def test_missing_import_of_an_experiment_keeps_its_traceback(run):
  done = run('--experiment=mine.broken')
  assert done.returncode == 1 and 'no_such_package' in done.stderr


@pytest.mark.parametrize('flag', ['--help', '-?', '--helpshort'])
def test_help(run, flag):
  done = run(flag)
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout.startswith('A binary for tests.\n')
  assert '\nrun:\n  --experiment=TEXT\n' in done.stdout
  assert '\n  --output_dir=TEXT\n      Where results go.\n' in done.stdout
  assert '\n  --privacy.clip_norm=X\n' in done.stdout
  assert '--alsologtostderr' not in done.stdout


def test_helpfull_adds_the_flags_of_libraries(run):
  assert '--alsologtostderr' in textwrap.dedent(run('--helpfull').stdout)


@pytest.mark.parametrize('binary', BINARIES)
def test_help_of_binaries_answers_within_a_second(binary):
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [sys.executable, '-m', f'experiments.{binary}', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  assert (done.returncode, done.stderr) == (0, '')
  assert seconds < 1.0  # Processor time: a busy machine does not count.
