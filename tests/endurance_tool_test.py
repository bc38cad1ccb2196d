"""What the tool for long runs makes of its samples."""

import importlib.util
import pathlib

import pandas as pd

_PATH = pathlib.Path(__file__).parents[1] / 'tools' / 'endurance.py'
_SPEC = importlib.util.spec_from_file_location('endurance', _PATH)
endurance = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(endurance)


def _windows():
  rounds = range(0, 1000, 3)  # Not every round is seen.
  samples = pd.DataFrame({'round': rounds})
  samples[endurance._MEMORY] = [500.0 + r / 100 for r in rounds]
  samples[endurance._FILES] = [10 + (r % 30 == 0) for r in rounds]
  samples[endurance._THREADS] = 7
  for name in endurance._SIZES.values():
    samples[name] = [r * 0.5 for r in rounds]
  index = pd.RangeIndex(1, 1000, name='round')
  seconds = pd.Series([9.0] + [0.1] * 998, index=index)
  return endurance.by_window(samples, seconds)


def test_windows_hold_the_most_the_last_and_the_median():
  windows = _windows()
  assert windows.index.tolist() == [*range(10, 1000, 10), 999]
  assert windows.loc[30, endurance._FILES] == 11
  assert windows.loc[20, endurance._FILES] == 10
  assert windows.loc[10, endurance._MEDIAN] == 0.1
  assert windows.loc[10, endurance._SLOW] > 1.0  # The round that compiles.
  assert windows.loc[999, 'ledger, kB'] == 999 * 0.5


def test_growth_is_since_a_tenth_of_the_rounds():
  growth = endurance._growth(_windows())
  start, end = growth[endurance._MEMORY]
  assert 501.0 < start < 501.2 and 509.9 < end < 510.0


def test_published_run_is_whole_and_nearly_flat():
  windows = pd.read_csv(
    _PATH.parents[1] / 'docs' / 'endurance.csv', index_col=0
  )
  assert windows.index[-1] == 4990 and len(windows) == 100
  for start, end in list(endurance._growth(windows).values())[:3]:
    assert end < 1.1 * start
