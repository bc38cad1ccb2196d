"""Same seed, same machine: the same metrics, bit for bit where it can be had.

Two runs with the same settings of threads are equal in every bit. Sums of
floats depend on how many lanes and threads share them, so across settings they
are equal to small_runs.TOLERANCE, which is relative.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import small_runs
from tff_pipeline import experiment

pytestmark = pytest.mark.usefixtures('without_reports')
_ROOT = pathlib.Path(__file__).parents[1]


def test_two_runs_in_one_process_are_equal_in_every_bit(tmp_path):
  wanted = small_runs.build()
  for name in ('one', 'other'):
    experiment.run(wanted, tmp_path / name)
  assert small_runs.rows(tmp_path / 'one') == small_runs.rows(
    tmp_path / 'other'
  )
  for ours, theirs in zip(
    small_runs.weights(tmp_path / 'one'),
    small_runs.weights(tmp_path / 'other'),
    strict=True,
  ):
    np.testing.assert_array_equal(ours, theirs)


_RUN = """
import os, sys
os.cpu_count = lambda: int(sys.argv[2])  # Decides the lanes.
from tests import small_runs
from tff_pipeline import experiment
experiment.run(small_runs.build(), sys.argv[1])
"""


def _rows_with(folder, *, threads, lanes):
  done = subprocess.run(
    [sys.executable, '-c', _RUN, folder, str(lanes)],
    cwd=_ROOT,
    env=os.environ
    | {
      'TF_CPP_MIN_LOG_LEVEL': '3',
      'TF_NUM_INTRAOP_THREADS': str(threads),
      'TF_NUM_INTEROP_THREADS': str(threads),
    },
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return small_runs.rows(folder)


@pytest.mark.slow
def test_threads_and_lanes_change_the_last_bits_at_most(tmp_path):
  settings = [(1, 2), (1, 2), (2, 2), (8, 2), (1, 1), (2, 4)]
  found = [
    _rows_with(tmp_path / str(i), threads=threads, lanes=lanes)
    for i, (threads, lanes) in enumerate(settings)
  ]
  assert found[0] == found[1]  # Two processes, the same settings.
  for rows in found[2:]:
    small_runs.assert_same_rows(rows, found[0])
  print([rows == found[0] for rows in found])
