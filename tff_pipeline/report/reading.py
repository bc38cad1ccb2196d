"""Run directories as records and as pandas tables.

From runs to a figure of your own:

  frame = reading.load('runs/noise')
  last = frame[frame['round'] == frame['rounds']]
  last.plot.scatter('epsilon', 'test_accuracy')

Every row carries the epsilon of its own round, and what that epsilon is about:
`relation`, `unit`, `delta`, `extrapolated`. Rows that differ in those do not
belong on one axis.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import statement as statements

CONFIG = 'config.json'
METRICS = 'metrics.csv'
SWEEP = 'sweep.json'
SEEDS = ('seed', 'privacy.noise_seed')
"""Leaves in which the repetitions of one arm differ."""

UNFINISHED = 'unfinished'
TEST = 'test_'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
  """One run directory.

  Attributes:
    path: The directory.
    name: What pages call it: the path below what was asked for.
    leaves: Dotted name -> value of every set leaf, what was solved included.
    metrics: A row for each finished round.
    statement: `privacy.json`; of an unfinished run, derived from its ledger.
    status: As in `summary.json`, or 'unfinished'.
    record: `config.json`, for versions, revision, command line and start.
    data: What `summary.json` says of the data: 'real', or what stands in.
    communication: What `summary.json` says was sent; empty if nothing was, or
      the run is unfinished.
  """

  path: pathlib.Path
  name: str
  leaves: Mapping[str, Any]
  metrics: pd.DataFrame
  statement: Mapping[str, Any]
  status: str
  record: Mapping[str, Any]
  data: str = 'real'
  communication: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def is_finished(self) -> bool:
    """Whether the run came to an end, its own or that of its budget."""
    return self.status != UNFINISHED

  @property
  def rounds(self) -> int:
    """Rounds in the table."""
    return len(self.metrics)

  @property
  def epsilon(self) -> float:
    """Headline epsilon at the last round; infinity where nothing is noised."""
    return float(self.statement['epsilon'])

  @functools.cached_property
  def evaluated(self) -> pd.DataFrame:
    """The rows of rounds that were evaluated on held-out data."""
    names = [name for name in self.metrics if name.startswith(TEST)]
    return self.metrics.dropna(subset=names, how='all')

  def final(self, metric: str) -> float:
    """Returns a held-out metric at the last evaluated round; NaN if none."""
    values = self.evaluated.get(metric, pd.Series(dtype=float)).dropna()
    return float(values.iloc[-1]) if len(values) else math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
  """The runs that a page is about.

  Attributes:
    runs: In the order of their directories.
    missing: Run directories that a sweep planned and that hold no run yet.
    sweeps: The records of the sweeps among them.
  """

  runs: tuple[Run, ...]
  missing: tuple[str, ...] = ()
  sweeps: tuple[Mapping[str, Any], ...] = ()


def read(path: str | os.PathLike[str], *, name: str | None = None) -> Run:
  """Reads one run directory, finished or not.

  Raises:
    UsageError: If it is not one, or a file in it cannot be read.
  """
  folder = pathlib.Path(path)
  record = read_json(folder / CONFIG)
  try:
    values = record['config']
    leaves = run_directory.flat(values)
    if record.get('solved'):
      leaves.pop('privacy.target_epsilon', None)
      leaves.pop('privacy.solve_for', None)
      leaves[record['solved']['leaf']] = record['solved']['value']
  except (KeyError, TypeError, AttributeError) as e:
    raise _unreadable(folder / CONFIG, e) from e
  summary = folder / 'summary.json'
  ended = read_json(summary) if summary.exists() else {'status': UNFINISHED}
  return Run(
    path=folder,
    name=name or folder.resolve().name,
    leaves=leaves,
    metrics=_metrics(folder / METRICS),
    statement=_statement(folder, record, is_finished=summary.exists()),
    status=ended['status'],
    record=record,
    data=ended.get('data', 'real'),
    communication=ended.get('communication', {}),
  )


def collect(paths: Sequence[str | os.PathLike[str]]) -> Collection:
  """Reads runs, and all runs below directories that are not runs themselves.

  Raises:
    UsageError: If there is no run in one of them.
  """
  runs, missing, sweeps = {}, [], []
  for path in map(pathlib.Path, paths):
    found = list(_folders(path))
    planned = []
    if (path / SWEEP).exists():
      sweep = read_json(path / SWEEP)
      sweeps.append(sweep)
      planned = [arm['directory'] for arm in sweep['arms']]
    for folder in found:
      name = _name(folder, path, alone=len(paths) == 1)
      runs.setdefault(folder.resolve(), read(folder, name=name))
    missing += [p for p in planned if not (path / p / CONFIG).exists()]
    if not found and not planned:
      raise validate.UsageError(
        f'{path}: expected a run directory, or one that holds some; found no '
        f'{CONFIG} in it'
      )
  return Collection(
    runs=tuple(runs.values()), missing=tuple(missing), sweeps=tuple(sweeps)
  )


def load(*paths: str | os.PathLike[str]) -> pd.DataFrame:
  """Returns one row for each round of each run.

  Columns: `run`; every leaf that some run sets, by dotted name; `status`,
  `unit`, `relation`, `delta`, `extrapolated`; then those of `metrics.csv`
  (columns named `unnoised_*` are not covered by the privacy statement). Where
  nothing is noised, epsilon is infinite.

  Args:
    *paths: Run directories, or directories that hold some.
  """
  frames = []
  for run in collect(paths).runs:
    facts = {'run': run.name, **run.leaves, 'status': run.status}
    for entry in ('unit', 'relation', 'delta', 'extrapolated'):
      facts[entry] = run.statement[entry]
    constants = pd.DataFrame([facts] * run.rounds, index=run.metrics.index)
    frames.append(pd.concat([constants, run.metrics], axis='columns'))
  return pd.concat(frames, ignore_index=True)


def primary_metric(runs: Iterable[Run]) -> str:
  """Returns the held-out metric to look at first: accuracy if all have it.

  Raises:
    UsageError: If the runs have no held-out metric in common.
  """
  common = None
  for run in runs:
    names = [name for name in run.metrics if name.startswith(TEST)]
    common = names if common is None else [n for n in common if n in names]
  if not common:
    raise validate.UsageError(
      'the runs have no held-out metric in common: compare them one by one'
    )
  others = [name for name in common if name != f'{TEST}loss']
  accuracy = [name for name in others if name == f'{TEST}accuracy']
  return (accuracy or others or common)[0]


def is_higher_better(metric: str) -> bool:
  """Returns whether a larger value is a better one, by the metric's name.

  >>> is_higher_better('test_accuracy'), is_higher_better('test_loss')
  (True, False)
  """
  words = metric.removeprefix(TEST).split('_')
  return not {'loss', 'error', 'mae', 'mse', 'rmse', 'perplexity'} & set(words)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    UsageError: If there is none.
  """
  try:
    values = json.loads(path.read_bytes())
  except OSError as e:
    raise validate.UsageError(f'{path}: {e.strerror}') from e
  except ValueError as e:
    raise _unreadable(path, e) from e
  if not isinstance(values, dict):
    raise _unreadable(path, TypeError('not a JSON object'))
  return values


def _unreadable(path: pathlib.Path, error: Exception) -> validate.UsageError:
  return validate.UsageError(f'{path}: cannot be read: {error!r}')


def _folders(path: pathlib.Path) -> Iterable[pathlib.Path]:
  """Yields the run directories at or below a path."""
  if (path / CONFIG).exists():
    yield path
  elif path.is_dir():
    for child in sorted(path.iterdir(), key=_natural_order):
      if child.is_dir() and not child.is_symlink():
        yield from _folders(child)


def _natural_order(path: pathlib.Path) -> list[Any]:
  """Sorts seed=2 before seed=10."""
  head, _, tail = path.name.rpartition('=')
  try:
    return [head, 0, float(tail), '']
  except ValueError:
    return [head, 1, 0.0, tail]


def _name(folder: pathlib.Path, path: pathlib.Path, *, alone: bool) -> str:
  if folder == path:
    return folder.resolve().name
  below = folder.relative_to(path).as_posix()
  return below if alone else f'{path.resolve().name}/{below}'


def _metrics(path: pathlib.Path) -> pd.DataFrame:
  """Returns the whole rows of `metrics.csv`; none if there is no file."""
  nothing = pd.DataFrame({'round': pd.Series(dtype=int)})
  if not path.exists():
    return nothing
  try:
    text = path.read_text(encoding='utf-8')
    if '\n' not in text:
      return nothing
    whole = text[: text.rfind('\n') + 1].splitlines()
    # Whether a price is extrapolated stands in the statement.
    names = [n.removeprefix('extrapolated_') for n in whole[0].split(',')]
    rows = [list(map(float, line.split(','))) for line in whole[1:]]
    frame = pd.DataFrame(np.array(rows).reshape(-1, len(names)), columns=names)
    return frame.astype({'round': int})
  except (OSError, ValueError, KeyError) as e:
    raise _unreadable(path, e) from e


def _statement(
  folder: pathlib.Path, record: Mapping[str, Any], *, is_finished: bool
) -> Mapping[str, Any]:
  """Returns what the run says, or what its ledger says so far."""
  if is_finished:
    return read_json(folder / 'privacy.json')
  path = folder / 'ledger'
  experiment = config.from_dict(record['config'])
  solved = record.get('solved')
  if solved:
    experiment = config.with_solution(
      experiment, solved['leaf'], solved['value']
    )
  if not path.exists():
    return statements.build(config.terms(experiment), released=0, solved=solved)
  started = ledgers.Ledger.read(path)
  return statements.build(
    config.terms(experiment),
    released=started.release_counts(started.last_round),
    replays=started.replays(),
    solved=solved,
    uncovered=record.get('uncovered', ()),
  )
