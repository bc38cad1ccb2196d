"""The tables of results: no accuracy without its epsilon, so each has both."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tff_pipeline.report import comparison
from tff_pipeline.report import reading
from tff_pipeline.report import tables


def results(
  arms: Sequence[comparison.Arm], *, metric: str, trials: int | None = None
) -> tables.Table:
  """Returns the main table: a row for each arm."""
  leaves = list(arms[0].changes)
  about = _About(arms)
  rows, raw_rows = [], []
  for arm in arms:
    found = arm.final(metric)
    seeds = len(arm.by_seed(metric))
    rounds = max(run.rounds for run in arm.runs)
    values = [arm.changes[leaf] for leaf in leaves] or [arm.label]
    rows.append(
      (
        *(tables.Cell(v, comparison.value(v)) for v in values),
        tables.with_interval(found),
        _epsilon_of(arm),
        *about.cells(arm),
        tables.Cell(seeds, str(seeds)),
        tables.Cell(rounds, str(rounds)),
      )
    )
    raw_rows.append(
      dict(zip(leaves or ['runs'], values, strict=True))
      | {
        metric: found.mean,
        f'{metric}_low': found.low,
        f'{metric}_high': found.high,
        'epsilon': arm.epsilon,
        **dataclasses.asdict(arm.promise),
        'seeds': seeds,
        'rounds': rounds,
      }
      | ({'trials': trials} if trials else {})
    )
  caption = (
    f'{tables.metric_name(metric).capitalize()} after the last round: mean '
    f'over seeds ± half of its {comparison.LEVEL:.0%} t interval. ε is that of '
    f'one run, rounded up{about.in_words}.'
  )
  if trials:
    caption += f' Chosen among {trials} trials, which no ε here pays for.'
  headings = [comparison.short(leaf) for leaf in leaves] or ['runs']
  return tables.Table(
    name='results',
    title='Results',
    caption=caption,
    columns=(
      *headings,
      tables.metric_name(metric),
      'ε',
      *about.heading,
      'seeds',
      'rounds',
    ),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def paired(
  arms: Sequence[comparison.Arm], other: comparison.Arm, *, metric: str
) -> tables.Table:
  """Returns differences within pairs from one arm."""
  about = _About(arms)
  rows, raw_rows = [], []
  for arm in arms:
    if arm is other:
      continue
    values = comparison.differences(arm, other, metric=metric)
    found = comparison.interval(values)
    shares = ', '.join(comparison.shared(arm, other)) or 'the seed only'
    rows.append(
      (
        tables.Cell(arm.label, arm.label),
        tables.with_interval(found, sign='+'),
        _epsilon_of(arm),
        *about.cells(arm),
        tables.Cell(len(values), str(len(values))),
        tables.Cell(shares, shares),
      )
    )
    raw_rows.append(
      {
        'arm': arm.label,
        'reference': other.label,
        'difference': found.mean,
        'difference_low': found.low,
        'difference_high': found.high,
        'epsilon': arm.epsilon,
        'reference_epsilon': other.epsilon,
        'pairs': len(values),
        'shared': shares,
      }
    )
  return tables.Table(
    name='paired_differences',
    title='Differences within pairs',
    caption=f'{tables.metric_name(metric).capitalize()} less that of '
    f'{other.label} (ε = {_epsilon_of(other).text}) with the same seed: mean '
    f'over pairs ± half of its {comparison.LEVEL:.0%} t interval. Each '
    'interval by itself has that level; nothing is corrected for their number. '
    f'ε of one run{about.in_words}.',
    columns=(
      'arm',
      'difference',
      'ε',
      *about.heading,
      'pairs',
      'a pair shares',
    ),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def to_target(
  arms: Sequence[comparison.Arm], *, metric: str, target: float
) -> tables.Table:
  """Returns the rounds and the epsilon that a target value took."""
  about = _About(arms)
  rows, raw_rows = [], []
  for arm in arms:
    found = comparison.reached(arm, metric=metric, target=target)
    rows.append(
      (
        tables.Cell(arm.label, arm.label),
        tables.number(found.rounds, 1),
        tables.epsilon(found.epsilon, extrapolated=arm.promise.extrapolated),
        *about.cells(arm),
        tables.Cell(found.runs[0], f'{found.runs[0]} of {found.runs[1]}'),
      )
    )
    raw_rows.append(
      {
        'arm': arm.label,
        'target': target,
        'rounds': found.rounds,
        'epsilon': found.epsilon,
        **dataclasses.asdict(arm.promise),
        'runs_that_reached': found.runs[0],
        'runs': found.runs[1],
      }
    )
  sign = '≥' if reading.is_higher_better(metric) else '≤'
  return tables.Table(
    name='to_target',
    title=f'Rounds and ε to {tables.metric_name(metric)} {sign} {target:g}',
    caption='First evaluated round at the target: mean over the runs that '
    'reached it; ε is the largest among them at that round'
    f'{about.in_words}. Stopping there by looking at held-out data is a choice '
    'that ε does not cover.',
    columns=('arm', 'rounds', 'ε', *about.heading, 'reached by'),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def configs(arms: Sequence[comparison.Arm]) -> tables.Table:
  """Returns the leaves in which arms differ, a column for each arm."""
  leaves = list(arms[0].changes)
  headings = [f'arm {number}' for number in range(1, len(arms) + 1)]
  by_leaf = {leaf: [arm.changes[leaf] for arm in arms] for leaf in leaves}
  rows = tuple(
    (
      tables.Cell(leaf, leaf),
      *(tables.Cell(str(v), comparison.value(v)) for v in values),
    )
    for leaf, values in by_leaf.items()
  )
  promised = (
    tables.Cell('ε', 'ε, and what it is about'),
    *(
      tables.Cell(a.label, f'{_epsilon_of(a).text} ({a.promise.label})')
      for a in arms
    ),
  )
  raw = {'leaf': leaves} | {
    heading: [arm.changes[leaf] for leaf in leaves]
    for heading, arm in zip(headings, arms, strict=True)
  }
  return tables.Table(
    name='configs',
    title='What differs in their configs',
    caption='All other leaves are the same in all runs, but for seeds.',
    columns=('leaf', *headings),
    rows=(*rows, promised),
    raw=raw,
  )


def runs(found: Sequence[reading.Run], *, metric: str) -> tables.Table:
  """Returns a row for each run."""
  names = comparison.differing(found)
  rows, raw_rows = [], []
  for run in found:
    about = comparison.promise(run.statement)
    values = [run.leaves.get(name) for name in names]
    final = run.final(metric)
    seed = run.leaves['seed']
    rows.append(
      (
        tables.Cell(run.name, run.name),
        *(tables.Cell(v, comparison.value(v)) for v in values),
        tables.Cell(seed, str(seed)),
        tables.number(final),
        tables.epsilon(run.epsilon, extrapolated=about.extrapolated),
        tables.Cell(about.label, about.label),
        tables.Cell(run.rounds, str(run.rounds)),
        tables.Cell(run.status, run.status),
      )
    )
    raw_rows.append(
      {'run': run.name}
      | dict(zip(names, values, strict=True))
      | {'seed': seed, metric: final, 'epsilon': run.epsilon}
      | dataclasses.asdict(about)
      | {'rounds': run.rounds, 'status': run.status}
    )
  return tables.Table(
    name='runs',
    title='Every run',
    caption='One row for each run directory; the columns after its name are '
    'the leaves in which configs differ.',
    columns=(
      'run',
      *map(comparison.short, names),
      'seed',
      tables.metric_name(metric),
      'ε',
      'ε is about',
      'rounds',
      'status',
    ),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


class _About:
  """What the epsilons of a table are about: its caption, or a column of it.

  Where they are about different things, each row says so.
  """

  def __init__(self, arms: Sequence[comparison.Arm]):
    kinds = {arm.promise for arm in arms if arm.promise.scope != 'none'}
    self._differs = len(kinds) > 1
    self.heading = ('ε is about',) if self._differs else ()
    if self._differs:
      self.in_words = (
        ', and about different things: such ε must not be compared as numbers'
      )
    else:
      self.in_words = ''.join(f' ({kind.label})' for kind in kinds)

  def cells(self, arm: comparison.Arm) -> tuple[tables.Cell, ...]:
    """Returns the cells of a row."""
    label = arm.promise.label
    return (tables.Cell(label, label),) if self._differs else ()


def _epsilon_of(arm: comparison.Arm) -> tables.Cell:
  return tables.epsilon(arm.epsilon, extrapolated=arm.promise.extrapolated)


def _by_column(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
  names = dict.fromkeys(name for row in rows for name in row)
  return {name: [row.get(name) for row in rows] for name in names}
