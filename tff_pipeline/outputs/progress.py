"""What a person sees while a run is under way."""

from collections.abc import Mapping
import logging
import math
import sys
import time

import tqdm

from tff_pipeline.privacy import statement

_log = logging.getLogger(__name__)


class Progress:
  """A bar on a terminal; one log line an evaluation elsewhere."""

  def __init__(self, *, first: int, last: int):
    """Opens the bar at the rounds that are done already."""
    self._first = first
    self._last = last
    self._started = time.monotonic()
    self._is_terminal = sys.stderr.isatty()
    self._shown: dict[str, str] = {}
    self._bar = tqdm.tqdm(
      total=last,
      initial=first - 1,
      unit='round',
      disable=not self._is_terminal,
      dynamic_ncols=True,
      bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt} '
      '[{elapsed}<{remaining}{postfix}]',
    )

  def update(self, round_num: int, row: Mapping[str, float]) -> None:
    """Shows a finished row."""
    name, epsilon = _epsilon(row)
    evaluated = not math.isnan(epsilon)
    if evaluated:
      self._shown = {
        name.removeprefix('test_'): f'{value:.3f}'
        for name, value in row.items()
        if name.startswith('test_')
      }
      self._shown[name] = statement.shown(epsilon)
    speed = {'clients/s': f'{row["clients_per_second"]:.0f}'}
    self._bar.set_postfix(self._shown | speed, refresh=False)
    self._bar.update()
    if evaluated and not self._is_terminal:
      words = ' '.join(f'{k}={v}' for k, v in (self._shown | speed).items())
      left = self._seconds_left(round_num)
      _log.info('round %d/%d %s left=%s', round_num, self._last, words, left)

  def _seconds_left(self, round_num: int) -> str:
    elapsed = time.monotonic() - self._started
    done = round_num - self._first + 1
    seconds = elapsed / done * (self._last - round_num)
    return tqdm.tqdm.format_interval(seconds)

  def close(self) -> None:
    """Leaves the finished bar on the terminal."""
    self._bar.close()


def _epsilon(row: Mapping[str, float]) -> tuple[str, float]:
  """Returns the name and value of the headline, which may be extrapolated."""
  name = next(n for n in ('epsilon', 'extrapolated_epsilon') if n in row)
  return name, row[name]
