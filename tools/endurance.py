"""Runs thousands of rounds, watches the process, kills it, and resumes it.

  python tools/endurance.py [--rounds=5000] [--kill_after=4990] [--output=docs]

Writes endurance.csv (a row for each window of rounds) and endurance.png, and
prints what grew, and how long resuming took. Five thousand rounds take some
minutes.
"""

import argparse
from collections.abc import Callable
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot as plt
import pandas as pd
import psutil

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CHECKPOINT_EVERY = 50
_FLAGS = (
  '--experiment=quickstart',
  '--cohort.clients_per_round=12',
  '--evaluate_every=50',
  f'--checkpoint_every={_CHECKPOINT_EVERY}',
)
_WINDOWS = 100
_PAUSE_SECONDS = 0.05
_MEMORY = 'resident memory, MB'
_FILES = 'open files'
_THREADS = 'threads'
_HELD = (_MEMORY, _FILES, _THREADS)
_MEDIAN = 'median seconds a round'
_SLOW = '95th percentile of seconds a round'
# What stands in the run directory -> name of its size.
_SIZES = {
  'metrics.csv': 'metrics.csv, kB',
  'tensorboard': 'tensorboard/, kB',
  'ledger': 'ledger, kB',
  'checkpoints': 'checkpoints/, kB',
}


class Watch:
  """A run's process, and what it held whenever rows were added.

  Attributes:
    samples: Rows so far, what the process held, and sizes of files in kB.
  """

  def __init__(self, folder: pathlib.Path, *, rounds: int):
    """Starts a run, or continues it."""
    self.samples: list[dict[str, float]] = []
    self._folder = folder
    self._started = time.monotonic()
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.train', *_FLAGS]
      + [f'--rounds={rounds}', f'--output_dir={folder}'],
      cwd=_ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    self._program = psutil.Process(self._process.pid)

  def until(self, reached: Callable[[int], bool]) -> tuple[float, float]:
    """Watches until the number of rows is such.

    Returns:
      Seconds since the start, and of processor time, to which other processes
      on the machine add little.
    """
    last = -1
    while True:
      done = _num_rows(self._folder)
      if done != last:
        self._sample(done)
        last = done
      if reached(done):
        used = self._program.cpu_times()
        return time.monotonic() - self._started, used.user + used.system
      if self._process.poll() is not None:
        raise RuntimeError(f'the run ended with status {self._process.poll()}')
      time.sleep(_PAUSE_SECONDS)

  def _sample(self, done: int) -> None:
    with self._program.oneshot():
      held = {
        _MEMORY: self._program.memory_info().rss / 2**20,
        _FILES: self._program.num_fds(),
        _THREADS: self._program.num_threads(),
      }
    sizes = {k: _size(self._folder / name) for name, k in _SIZES.items()}
    self.samples.append({'round': done} | held | sizes)

  def kill(self) -> None:
    """Kills it with SIGKILL."""
    self._process.kill()
    self._process.wait()

  def finish(self) -> float:
    """Waits for its end; returns seconds since its start."""
    if self._process.wait():
      raise RuntimeError(f'the run ended with status {self._process.poll()}')
    return time.monotonic() - self._started


def _num_rows(folder: pathlib.Path) -> int:
  try:
    return max(0, (folder / 'metrics.csv').read_bytes().count(b'\n') - 1)
  except FileNotFoundError:
    return 0


def _size(path: pathlib.Path) -> float:
  """Returns kB of a file or of all files in a folder."""
  total = 0
  for part in (path, *path.rglob('*')):
    with contextlib.suppress(FileNotFoundError):  # Old checkpoints go.
      total += 0 if part.is_dir() else part.stat().st_size
  return total / 1e3


def by_window(samples: pd.DataFrame, seconds: pd.Series) -> pd.DataFrame:
  """Returns a row for each window of rounds: most held, times, last sizes.

  Args:
    samples: Of the process; a row at some of the rounds.
    seconds: Whole seconds of each round; its index are the rounds.
  """
  width = max(1, round(len(seconds) / _WINDOWS))

  def last_round(rounds: pd.Series) -> pd.Series:
    return (-(-rounds // width) * width).clip(upper=seconds.index[-1])

  seen = samples[samples['round'] > 0]
  groups = seen.groupby(last_round(seen['round']))
  timed = seconds.groupby(last_round(seconds.index.to_series()))
  found = pd.concat(
    [groups[list(_HELD)].max(), groups[list(_SIZES.values())].last()], axis=1
  )
  found[_MEDIAN] = timed.median()
  found[_SLOW] = timed.quantile(0.95)
  return found


def _growth(windows: pd.DataFrame) -> dict[str, tuple[float, float]]:
  """Returns what was held after a tenth of the rounds, and at the end."""
  start = windows.iloc[len(windows) // 10]
  end = windows.iloc[-1]
  return {name: (start[name], end[name]) for name in (*_HELD, _MEDIAN)}


def _draw(windows: pd.DataFrame) -> plt.Figure:
  figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), layout='constrained')
  panels = dict(
    zip((*_HELD, 'seconds', 'rows', 'kept'), axes.flat, strict=True)
  )
  for name in _HELD:
    panels[name].plot(windows.index, windows[name], color='#0072B2')
    panels[name].set_title(name)
  seconds = panels['seconds']
  seconds.plot(windows.index, 1e3 * windows[_MEDIAN], color='#0072B2')
  seconds.plot(windows.index, 1e3 * windows[_SLOW], color='#D55E00', ls='--')
  seconds.set_title('milliseconds a round')
  seconds.legend(['median', '95th percentile'], frameon=False)
  for style, name in zip(
    ('-', '--', ':'), list(_SIZES.values())[:3], strict=True
  ):
    label = name.removesuffix(', kB')
    panels['rows'].plot(
      windows.index, windows[name] / 1e3, ls=style, label=label
    )
  panels['rows'].set_title('MB of files that grow with the rounds')
  panels['rows'].legend(frameon=False)
  panels['kept'].plot(
    windows.index, windows['checkpoints/, kB'], color='#0072B2'
  )
  panels['kept'].set_title('kB of checkpoints')
  for panel in axes.flat:
    panel.set_ylim(0, 1.3 * panel.get_ylim()[1])
    panel.grid(alpha=0.3)
    panel.spines[['top', 'right']].set_visible(False)
  for panel in axes[1]:
    panel.set_xlabel('round')
  return figure


def main() -> None:
  """Runs, kills, resumes, and writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--rounds', type=int, default=5000)
  parser.add_argument('--kill_after', type=int, default=4990)
  parser.add_argument('--output', type=pathlib.Path, default=_ROOT / 'docs')
  args = parser.parse_args()
  if not 0 < args.kill_after < args.rounds:
    parser.error('--kill_after has to lie between 0 and --rounds')
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary) / 'run'
    first = Watch(folder, rounds=args.rounds)
    fresh = first.until(lambda done: done >= 1)
    first.until(lambda done: done >= args.kill_after)
    first.kill()
    killed = _num_rows(folder)
    rows = pd.read_csv(folder / 'metrics.csv', index_col='round')
    second = Watch(folder, rounds=args.rounds)
    kept = killed // _CHECKPOINT_EVERY * _CHECKPOINT_EVERY
    # The rows of lost rounds are cut first; then comes the first new one.
    second.until(lambda done: done != killed)
    resumed = second.until(lambda done: done > kept)
    ended = second.finish()
  windows = by_window(pd.DataFrame(first.samples), rows['whole_seconds'])
  args.output.mkdir(parents=True, exist_ok=True)
  windows.round(4).to_csv(args.output / 'endurance.csv')
  figure = _draw(windows)
  figure.savefig(args.output / 'endurance.png', dpi=110)
  plt.close(figure)
  for name, (start, end) in _growth(windows).items():
    print(
      f'{name}: {start:.4g} after a tenth of the rounds, {end:.4g} at the end'
    )
  for name in _SIZES.values():
    size = windows[name].iloc[-1]
    print(f'{name}: {size:.1f}, {1e3 * size / killed:.0f} bytes a round')
  print(f'a new run: the first row after {_shown(fresh)}')
  print(
    f'killed after round {killed}; resumed, the first new row after '
    f'{_shown(resumed)}; all of it after {ended:.1f} s'
  )


def _shown(seconds: tuple[float, float]) -> str:
  elapsed, used = seconds
  return f'{elapsed:.1f} s, {used:.1f} s of processor time'


if __name__ == '__main__':
  main()
