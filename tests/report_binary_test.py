"""The binary as a user meets it; no TensorFlow is loaded."""

import pathlib
import subprocess
import sys

import pytest

from tests import synthetic_runs

ROOT = pathlib.Path(__file__).parents[1]


def _run(*arguments, cwd=ROOT):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.report', *map(str, arguments)],
    cwd=cwd,
    capture_output=True,
    text=True,
    timeout=120,
  )


@pytest.fixture(name='runs')
def fixture_runs(tmp_path):
  paths = []
  for noise in (0.5, 1.0):
    wanted = synthetic_runs.build(privacy=synthetic_runs.privacy(noise))
    paths.append(synthetic_runs.write(tmp_path / f'noise={noise}', wanted))
  return paths


def test_page_of_a_run_goes_into_it(runs):
  done = _run(runs[0])
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout.splitlines()[0] == str(runs[0] / 'report.html')
  for line in done.stdout.splitlines():
    assert pathlib.Path(line).exists()


def test_several_runs_need_an_output_dir(runs, tmp_path):
  done = _run(*runs)
  assert done.returncode == 2 and '--output_dir' in done.stderr
  done = _run(*runs, f'--output_dir={tmp_path / "both"}')
  assert done.returncode == 0
  assert (tmp_path / 'both' / 'report' / 'frontier.png').exists()
  assert not (runs[0] / 'report.html').exists()


def test_table_of_a_readme_is_generated(runs, tmp_path):
  readme = tmp_path / 'README.md'
  readme.write_text('<!-- results:begin mine -->\n<!-- results:end mine -->\n')
  arguments = [f'--update_readme={readme}', '--section=mine', tmp_path]
  done = _run(*arguments)
  assert (done.returncode, done.stdout) == (0, f'{readme}: written\n')
  assert '| noise multiplier | held-out accuracy | ε |' in readme.read_text()
  assert _run(*arguments).stdout == f'{readme}: up to date\n'
  assert not (tmp_path / 'report.html').exists()


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], 'expected a run directory'),
    (['/no/such/run'], 'expected a run directory'),
    (['--target=x', '.'], '--target=x'),
  ],
)
def test_mistake_is_one_line(arguments, message):
  done = _run(*arguments)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.count('\n') == 1
