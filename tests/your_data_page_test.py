"""docs/your_data.md: its commands are run on a CSV, and print what it shows."""

import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests import page_commands
from tff_pipeline import config

ROOT = pathlib.Path(__file__).parents[1]
PAGE = 'your_data.md'


def visits():
  """Returns a table of 200 people, each with habits of their own."""
  rng = np.random.default_rng(0)
  person = np.repeat(np.arange(200), rng.integers(5, 26, 200))
  age = rng.integers(18, 90, 200)[person]
  sport = rng.choice(['none', 'rowing', 'running'], len(person))
  pulse = 50 + 0.3 * age + 6 * (sport == 'none') + rng.normal(0, 4, len(person))
  habit = rng.normal(0, 1.5, 200)[person]
  well = (70 - pulse) / 6 + habit + rng.logistic(size=len(person)) > 0
  return pd.DataFrame(
    {
      'person': [f'p{number:03d}@example.com' for number in person],
      'age': age,
      'sport': sport,
      'pulse': pulse.round().astype(int),
      'sleeps_well': np.where(well, 'yes', 'no'),
    }
  )


@pytest.fixture(name='folder', scope='module')
def fixture_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  table = visits()
  table.to_csv(folder / 'visits.csv', index=False)
  table = table.astype({'pulse': 'str'})
  table.loc[39, 'pulse'] = '6l0'
  table.to_csv(folder / 'broken.csv', index=False)
  return folder


@pytest.fixture(name='outputs', scope='module')
def fixture_outputs(folder):
  """Returns what each command printed, both streams together."""
  return {
    command: subprocess.run(
      [sys.executable, '-m', *shlex.split(command)],
      cwd=folder,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
      timeout=300,
    ).stdout
    for command, _ in page_commands.read(PAGE)
  }


@pytest.mark.parametrize('command, shown', page_commands.read(PAGE))
def test_every_line_shown_is_printed(command, shown, outputs):
  page_commands.assert_printed(shown, outputs[command].splitlines())


def test_nothing_that_is_written_has_a_user_id(folder, outputs):
  ids = [name.encode() for name in set(visits().person)]
  files = [
    path
    for top in ('look', 'runs')
    for path in (folder / top).rglob('*')
    if path.is_file()
  ]
  assert {'encoding.json', 'config.json', 'labels.png', 'metrics.csv'} <= {
    path.name for path in files
  }
  written = b''.join(path.read_bytes() for path in files)
  printed = ''.join(outputs.values()).encode()
  for name in ids:
    assert name not in written and name not in printed
  assert b'@example.com' not in written + printed


def test_training_learns_something(folder, outputs):
  del outputs
  rows = pd.read_csv(folder / 'runs' / 'visits' / 'metrics.csv')
  assert rows.test_accuracy.iloc[-1] > 0.6  # The majority is half.


def test_every_format_and_partition_is_on_the_page():
  text = (page_commands.DOCS / PAGE).read_text(encoding='utf-8')
  for name in (*config.FileTask, *config.Partition):
    assert f'| `{name}` |' in text
