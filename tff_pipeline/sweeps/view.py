"""What people see of a sweep in a terminal."""

from collections.abc import Iterator, Mapping, Sequence
import logging
import math
import pathlib
import signal
import sys
import time
from typing import Any

import tqdm

from tff_pipeline.privacy import statement
from tff_pipeline.sweeps import design
from tff_pipeline.sweeps import execution
from tff_pipeline.sweeps import pricing

_LOG_SECONDS = 15.0
_KILLED = 'killed, as the system does when memory runs out'
_log = logging.getLogger(__name__)
_interval = tqdm.tqdm.format_interval


def price_table(
  runs: Sequence[design.Planned],
  prices: Sequence[pricing.Price],
  *,
  probes: Sequence[pricing.Probe] | None,
) -> str:
  """Returns a line for each arm: seeds, rounds, epsilon, what it is about.

  Args:
    runs: All runs of the sweep.
    prices: One for each.
    probes: One for each, if time was measured.
  """
  arms: dict[str, list[int]] = {}
  for i, run in enumerate(runs):
    arms.setdefault(run.arm, []).append(i)
  head = ['arm', 'seeds', 'rounds', 'epsilon', 'epsilon is about']
  lines = [head + (['time of a run'] if probes else [])]
  for arm, members in arms.items():
    dearest = max((prices[i] for i in members), key=lambda p: p.epsilon)
    line = [
      arm,
      str(len(members)),
      str(dearest.rounds),
      statement.shown(dearest.epsilon),
      _about(dearest),
    ]
    if probes:
      line.append(_interval(probes[members[0]].estimate(dearest.rounds)))
    lines.append(line)
  return _aligned(lines)


def _about(price: pricing.Price) -> str:
  guaranteed = price.guarantee
  if guaranteed.unit is None:
    return 'no mechanism'
  words = f'{guaranteed.unit}-level, {guaranteed.relation}, delta {price.delta}'
  if guaranteed.clients is not None:
    words += ', client that takes part most often'
  if guaranteed.extrapolated:
    words += ', extrapolated'
  if price.solved is not None:
    leaf, value = price.solved
    words += f' (solved: {leaf} = {value})'
  return words


def _aligned(lines: Sequence[Sequence[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
    for line in lines
  )


def time_summary(
  seconds: Sequence[float], *, processes: int, memory: float
) -> str:
  """Returns the time of the whole sweep, side by side and one after another."""
  together = pricing.makespan(seconds, processes=processes)
  return (
    f'{len(seconds)} runs, {processes} at a time: about {_interval(together)}; '
    f'one after another about {_interval(sum(seconds))}. A run takes '
    f'{memory / 2**30:.1f} GB of memory. Estimated from runs that had the '
    'machine to themselves.'
  )


def failures(ended: execution.Progress, logs: pathlib.Path) -> Iterator[str]:
  """Yields what is to be said about each run that failed."""
  for job in ended.jobs:
    if ended.states[job.name] is not execution.State.FAILED:
      continue
    log = execution.log_path(logs, job)
    last = _last_line(log)
    status = ended.statuses[job.name]
    how = _KILLED if status == -signal.SIGKILL else f'exit status {status}'
    yield f'failed: {job.name} ({how}): {last} [{log}]'


def _last_line(log: pathlib.Path) -> str:
  """Returns what a run printed last."""
  if not log.exists():
    return 'nothing was printed'
  lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
  said = [line.strip() for line in lines if line.strip()]
  return said[-1][:300] if said else 'nothing was printed'


class Bar:
  """One bar over all rounds; log lines where there is no terminal."""

  def __init__(self) -> None:
    self._bar: tqdm.tqdm | None = None
    self._last = -math.inf
    self._told: dict[str, Any] = {}

  def __enter__(self) -> 'Bar':
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._bar is not None:
      self._bar.close()

  def update(self, progress: execution.Progress) -> None:
    """Shows how the sweep stands."""
    if sys.stderr.isatty():
      self._show(progress)
    else:
      self._tell(progress)

  def _show(self, progress: execution.Progress) -> None:
    done, planned = progress.rounds
    if self._bar is None:
      self._bar = tqdm.tqdm(
        total=planned,
        initial=done,
        unit='round',
        dynamic_ncols=True,
        bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt} rounds{postfix}',
      )
    self._bar.n, self._bar.total = done, planned
    self._bar.set_postfix_str(_standing(progress))

  def _tell(self, progress: execution.Progress) -> None:
    """Logs what has ended since, and now and then how all stands."""
    ended = {
      name: state
      for name, state in progress.states.items()
      if state in (execution.State.FINISHED, execution.State.FAILED)
    }
    news = [f'{n} {s}' for n, s in ended.items() if n not in self._told]
    first = not self._told and self._last == -math.inf
    self._told = ended
    now = time.monotonic()
    if (news and not first) or now - self._last > _LOG_SECONDS:
      self._last = now
      done, planned = progress.rounds
      words = ', '.join(news[:3]) + ': ' if news and not first else ''
      _log.info('%s%d/%d rounds, %s', words, done, planned, _standing(progress))


def _standing(progress: execution.Progress) -> str:
  """Returns the number of runs by state, and the time left."""
  number: Mapping[execution.State, int] = {
    state: progress.number(state) for state in execution.State
  }
  words = [f'{n} {state}' for state, n in number.items() if n]
  left = progress.seconds_left()
  if left is not None and left > 0:
    words.append(f'{_interval(left)} left')
  return ', '.join(words)
