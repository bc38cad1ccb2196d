"""Arms, intervals over seeds, differences within pairs, ways to a target.

Runs that differ in their seed alone are repetitions of one arm. The seed
decides partition, initial weights, cohorts and shuffles, so runs of two arms
with one seed form a pair, and what the arms do differently is read off within
pairs: whatever a seed makes easy or hard cancels.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pandas as pd

from tff_pipeline import config_flags
from tff_pipeline.report import reading

LEVEL = 0.95
"""Of every interval."""

IN_FIGURES = (
  f'Bars are {LEVEL:.0%} t intervals of the mean over seeds; dots are single '
  'runs.'
)
"""How figures show arms: for their captions."""

# Leaf prefixes that decide what two runs with one seed have in common.
_SHARED = {
  'partition': ('task.name', 'task.partition', 'task.clients', 'task.concen'),
  'initial weights': ('task.name', 'task.model'),
  'cohorts': ('cohort.', 'task.clients', 'privacy.population'),
  'shuffles': (
    'client.epochs',
    'client.batch_size',
    'client.sampling_rate',
    'client.shuffle',
  ),
}


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean with Student's t interval; without width below two values."""

  mean: float
  half_width: float

  @property
  def low(self) -> float:
    """Lower end."""
    return self.mean - self.half_width

  @property
  def high(self) -> float:
    """Upper end."""
    return self.mean + self.half_width


@dataclasses.dataclass(frozen=True, order=True)
class Promise:
  """What an epsilon is about: only equal ones may be compared as numbers.

  Attributes:
    scope: What is protected from whom; 'none' where nothing is.
    relation: The neighbouring relation.
    delta: The delta.
    extrapolated: Whether the epsilon is that of another run.
  """

  scope: str
  relation: str
  delta: float
  extrapolated: bool

  @property
  def label(self) -> str:
    """The promise in words."""
    if self.scope == 'none':
      return 'no mechanism'
    scope = {
      'user': 'user-level',
      'local': 'local, user-level',
      'sum_of_local': 'user-level, against an observer of sums',
      'client_example': 'example-level',
      'pooled_example': 'example-level',
    }.get(self.scope, self.scope)
    relation = self.relation.replace('_', ' ')
    words = f'{scope}, {relation}, δ = {self.delta:g}'
    return words + (', extrapolated' if self.extrapolated else '')


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
  """Runs that are alike but for their seed.

  Attributes:
    changes: The leaves in which arms differ -> this arm's values; an unset one
      is `None`.
    runs: At least one.
  """

  changes: Mapping[str, Any]
  runs: tuple[reading.Run, ...]

  @functools.cached_property
  def label(self) -> str:
    """What tells the arm from others, in short names."""
    known = {k: v for k, v in self.changes.items() if v is not None}
    return words(known) or 'all runs'

  @functools.cached_property
  def brief(self) -> str:
    """The label without the names of leaves."""
    known = [value(v) for v in self.changes.values() if v is not None]
    return ', '.join(known)

  @property
  def promise(self) -> Promise:
    """What its epsilons are about."""
    return promise(self.runs[0].statement)

  @property
  def epsilon(self) -> float:
    """The largest over its runs: they differ where clients' counts matter."""
    return max(run.epsilon for run in self.runs)

  def by_seed(self, metric: str) -> pd.Series:
    """Returns seed -> final value; the mean where a seed was run repeatedly."""
    finals = pd.Series(
      [run.final(metric) for run in self.runs],
      index=[run.leaves['seed'] for run in self.runs],
      dtype=float,
    )
    return finals.groupby(level=0).mean()

  def final(self, metric: str) -> Interval:
    """Returns the final value over seeds."""
    return interval(self.by_seed(metric))


def promise(statement: Mapping[str, Any]) -> Promise:
  """Returns what the epsilon of a statement is about."""
  return Promise(
    scope=statement['scope'],
    relation=statement['relation'] or '',
    delta=statement['delta'] or 0.0,
    extrapolated=bool(statement['extrapolated']),
  )


def differing(runs: Sequence[reading.Run]) -> tuple[str, ...]:
  """Returns the leaves, but for seeds, that are not the same in all runs."""
  names = dict.fromkeys(name for run in runs for name in run.leaves)
  return tuple(
    name
    for name in names
    if name not in reading.SEEDS
    and len({repr(run.leaves.get(name)) for run in runs}) > 1
  )


def arms(runs: Sequence[reading.Run]) -> tuple[Arm, ...]:
  """Groups runs that differ in their seed alone, in the order of values.

  Runs of one config whose statements are about different things (which only
  another version of this program could cause) are not one arm.
  """
  names = _telling(runs)
  groups: dict[tuple[Any, ...], list[reading.Run]] = {}
  for run in runs:
    key = (*(run.leaves.get(name) for name in names), promise(run.statement))
    groups.setdefault(key, []).append(run)
  found = [
    Arm(dict(zip(names, key[:-1], strict=True)), tuple(members))
    for key, members in groups.items()
  ]
  return tuple(sorted(found, key=lambda arm: _order(arm.changes)))


def _telling(runs: Sequence[reading.Run]) -> list[str]:
  """Returns the differing leaves without those that a choice implies.

  Where a mechanism is compared with none, its clip norm is not news if all
  arms that have one have the same.
  """
  names = differing(runs)
  fields = config_flags.leaves()

  def is_implied(name: str) -> bool:
    rule = fields[name].metadata['rule'] if name in fields else None
    if rule is None or rule.used_by is None:
      return False
    section = name.rpartition('.')[0]
    choice = f'{section}.{rule.used_by[0]}' if section else rule.used_by[0]
    values = {
      repr(run.leaves.get(name))
      for run in runs
      if run.leaves.get(choice) in rule.used_by[1]
    }
    return choice in names and len(values) == 1

  return [name for name in names if not is_implied(name)]


def by_promise(arms: Sequence[Arm]) -> dict[Promise, list[Arm]]:
  """Returns what epsilons are about -> the arms that may share an axis.

  Where nothing is promised epsilon is infinite under every relation, so those
  arms are in every group.
  """
  nothing = [arm for arm in arms if arm.promise.scope == 'none']
  groups: dict[Promise, list[Arm]] = {}
  for arm in arms:
    if arm.promise.scope != 'none':
      groups.setdefault(arm.promise, []).append(arm)
  if not groups:
    return {arms[0].promise: list(arms)}
  return {key: [*members, *nothing] for key, members in groups.items()}


def interval(values: Sequence[float] | pd.Series) -> Interval:
  """Returns mean and Student's t interval at LEVEL.

  >>> found = interval([0.80, 0.82, 0.84])
  >>> round(found.mean, 6), round(found.half_width, 4)
  (0.82, 0.0497)
  """
  from scipy import stats

  array = np.asarray(values, dtype=float)
  if len(array) < 2:
    return Interval(float(array.mean()) if len(array) else math.nan, math.nan)
  quantile = stats.t.ppf((1 + LEVEL) / 2, len(array) - 1)
  error = array.std(ddof=1) / math.sqrt(len(array))
  return Interval(float(array.mean()), float(quantile * error))


def reference(found: Sequence[Arm]) -> Arm:
  """Returns the arm that others are compared with: the least private one."""
  return max(found, key=lambda arm: arm.epsilon)


def differences(arm: Arm, other: Arm, *, metric: str) -> pd.Series:
  """Returns seed -> final value of `arm` less that of `other`, within pairs."""
  ours, theirs = arm.by_seed(metric), other.by_seed(metric)
  common = ours.index.intersection(theirs.index)
  return ours[common] - theirs[common]


def shared(arm: Arm, other: Arm) -> tuple[str, ...]:
  """Returns what runs of two arms with one seed have in common.

  By their configs; and cohorts only if the recorded sizes agree as well.
  """
  ours, theirs = arm.runs[0].leaves, other.runs[0].leaves

  def agree(name: str) -> bool:
    values = ours.get(name), theirs.get(name)
    # Without a mechanism the population is not written down.
    unknown = name == 'privacy.population' and None in values
    return unknown or values[0] == values[1]

  def same(prefixes: tuple[str, ...]) -> bool:
    names = ours.keys() | theirs.keys()
    return all(map(agree, [n for n in names if n.startswith(prefixes)]))

  found = [what for what, prefixes in _SHARED.items() if same(prefixes)]
  if 'cohorts' in found and not _same_sizes(arm, other):
    found.remove('cohorts')
  return tuple(found)


def _same_sizes(arm: Arm, other: Arm) -> bool:
  """Returns whether recorded cohort sizes agree wherever both have a round."""
  column = 'unnoised_cohort_size'
  theirs = {run.leaves['seed']: run.metrics for run in other.runs}
  for run in arm.runs:
    match = theirs.get(run.leaves['seed'])
    if match is None or column not in match or column not in run.metrics:
      continue
    number = min(len(match), len(run.metrics))
    if not np.array_equal(match[column][:number], run.metrics[column][:number]):
      return False
  return True


@dataclasses.dataclass(frozen=True)
class Reached:
  """When the runs of an arm first met a target.

  Attributes:
    runs: How many did, and the number of runs.
    rounds: Mean over those that did; NaN if none did.
    epsilon: The largest among them at that round; NaN if none did.
  """

  runs: tuple[int, int]
  rounds: float
  epsilon: float


def reached(arm: Arm, *, metric: str, target: float) -> Reached:
  """Returns the first evaluated rounds with a metric at the target."""
  firsts = []
  for run in arm.runs:
    rows = run.evaluated
    better = reading.is_higher_better(metric)
    met = rows[metric] >= target if better else rows[metric] <= target
    if met.any():
      firsts.append(rows[met].iloc[0])
  if not firsts:
    return Reached((0, len(arm.runs)), math.nan, math.nan)
  return Reached(
    (len(firsts), len(arm.runs)),
    float(np.mean([row['round'] for row in firsts])),
    max(float(row['epsilon']) for row in firsts),
  )


def usual_target(found: Sequence[Arm], *, metric: str) -> float:
  """Returns a round value that about half of the arms end beyond."""
  finals = sorted(arm.final(metric).mean for arm in found)
  middle = finals[(len(finals) - 1) // 2]
  if not math.isfinite(middle):
    return middle
  step = 0.05 if abs(middle) <= 1 else 0.5
  better = reading.is_higher_better(metric)
  return round((math.floor if better else math.ceil)(middle / step) * step, 6)


def mean_curve(arm: Arm, metric: str) -> pd.DataFrame:
  """Returns mean, low and high over runs (their range) by evaluated round."""
  curves = pd.concat(
    [run.evaluated.set_index('round')[metric] for run in arm.runs],
    axis='columns',
  ).dropna()
  return pd.DataFrame(
    {
      'mean': curves.mean(axis='columns'),
      'low': curves.min(axis='columns'),
      'high': curves.max(axis='columns'),
    }
  )


def short(leaf: str) -> str:
  """Returns a leaf's last name, in words.

  >>> short('privacy.noise_multiplier'), short('server.learning_rate')
  ('noise multiplier', 'server learning rate')
  """
  section, _, name = leaf.rpartition('.')
  ambiguous = name in ('optimizer', 'learning_rate', 'momentum', 'name')
  return (
    f'{section} {name}'.replace('_', ' ')
    if ambiguous
    else name.replace('_', ' ')
  )


def value(leaf_value: Any) -> str:
  """Returns a leaf's value as people write it.

  >>> value(3.0), value(1e-05), value(None), value('sgd')
  ('3', '1e-05', 'unset', 'sgd')
  """
  if leaf_value is None:
    return 'unset'
  return f'{leaf_value:g}' if isinstance(leaf_value, float) else f'{leaf_value}'


def words(changes: Mapping[str, Any]) -> str:
  """Returns leaves with their values.

  >>> words({'privacy.noise_multiplier': 0.3, 'client.epochs': 2})
  'noise multiplier 0.3, epochs 2'
  """
  return ', '.join(f'{short(k)} {value(v)}' for k, v in changes.items())


def _order(changes: Mapping[str, Any]) -> list[tuple[int, float, str]]:
  """Sorts numbers as numbers, after what is unset and before text."""
  return [
    (0, 0.0, '')
    if v is None
    else (1, float(v), '')
    if isinstance(v, int | float)
    else (2, 0.0, str(v))
    for v in changes.values()
  ]
