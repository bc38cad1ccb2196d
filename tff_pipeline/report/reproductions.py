"""What papers published beside what runs here measured, as Markdown.

A paper is an experiment file with a `Claim` that has rows; its runs are those
of its sweep. Nothing here trains, and what was not run says so.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import inspect
import math
import re
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory
from tff_pipeline.report import comparison
from tff_pipeline.report import reading
from tff_pipeline.report import reproduction_sections as sections
from tff_pipeline.report import tables

FIELDS = ('Paper', 'Differs', 'Run', 'Takes')
"""What the docstring of an experiment file says, each after its name."""

METRIC = reading.TEST + 'accuracy'
"""What rows are about."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Paper:
  """One reproduction.

  Attributes:
    name: Of the experiment file.
    documentation: Its docstring.
    claim: What was published.
    runs: Its runs, finished or not; none if it was not run.
  """

  name: str
  documentation: str
  claim: config.Claim
  runs: Sequence[reading.Run] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
  """What the runs of a row's arm gave.

  Attributes:
    arm: The runs.
    figures: One for each run; NaN where a target was not reached.
    chosen: Tuned leaf -> its best value.
  """

  arm: comparison.Arm
  figures: tuple[float, ...]
  chosen: Mapping[str, Any]

  @property
  def reached(self) -> tuple[float, ...]:
    """The figures of the runs that have one."""
    return tuple(f for f in self.figures if not math.isnan(f))


def fields(documentation: str) -> dict[str, str]:
  r"""Returns what a docstring says under each of `FIELDS`, in one line each.

  >>> fields('Title.\n\nPaper:  A, B.\n        2016.\nRun:    this')
  {'Paper': 'A, B. 2016.', 'Run': 'this'}
  """
  found: dict[str, str] = {}
  name = None
  for line in inspect.cleandoc(documentation).splitlines():
    start = re.match(rf'({"|".join(FIELDS)}):\s+(.*)', line)
    if start:
      name = start[1]
      found[name] = start[2]
    elif name is not None and line.startswith(' '):
      # A word or a path that goes on in the next line.
      joint = '' if re.search(r'\w[-/]$', found[name]) else ' '
      found[name] += joint + line.strip()
    else:
      name = None
  return found


def select(row: config.Row, runs: Sequence[reading.Run]) -> list[reading.Run]:
  """Returns the finished runs that a row is about."""
  return [
    run
    for run in runs
    if run.is_finished
    and all(_leaf(run, leaf) == value for leaf, value in row.arm.items())
  ]


def _leaf(run: reading.Run, leaf: str) -> Any:
  """Returns a leaf as it was given, or as it was solved."""
  given = run_directory.flat(run.record['config'])
  return given.get(leaf, run.leaves.get(leaf))


def measure(row: config.Row, runs: Sequence[reading.Run]) -> Measured | None:
  """Returns a row's figures here; `None` if it was not run.

  Raises:
    UsageError: If its runs differ in more than seeds and tuned leaves.
  """
  mine = select(row, runs)
  if not mine:
    return None
  found = comparison.arms(mine)
  differing = {leaf for arm in found for leaf in arm.changes}
  if len(found) > 1 and not differing <= set(row.tuned):
    raise validate.UsageError(
      f'row {row.name!r}: expected runs that differ in their seed'
      + ''.join(f' or {leaf}' for leaf in row.tuned)
      + f', found {", ".join(sorted(differing - set(row.tuned)))}'
    )
  measured = [
    Measured(
      arm=arm,
      figures=tuple(_figure(row, run) for run in arm.runs),
      chosen={
        leaf: arm.runs[0].leaves[leaf]
        for leaf in row.tuned
        if leaf in arm.runs[0].leaves
      },
    )
    for arm in found
  ]
  return min(measured, key=lambda m: _badness(row, m))


def _figure(row: config.Row, run: reading.Run) -> float:
  if row.target is None:
    return run.final(METRIC)
  rows = run.evaluated
  met = rows[rows[METRIC] >= row.target]
  return float(met['round'].iloc[0]) if len(met) else math.nan


def _badness(row: config.Row, measured: Measured) -> tuple[float, float]:
  """Sorts what a paper would choose first: all seeds first, then the figure."""
  if not measured.reached:
    return (1.0, 0.0)
  missed = 1 - len(measured.reached) / len(measured.figures)
  mean = float(np.mean(measured.reached))
  return (missed, mean if row.target is not None else -mean)


def page(
  papers: Sequence[Paper],
  *,
  command: str,
  pictures: Mapping[str, str],
  earlier: Mapping[str, str],
) -> str:
  """Returns the whole page.

  Args:
    papers: In the order of the page.
    command: What writes it.
    pictures: Paper's name -> path of its curves from the page on.
    earlier: Paper's name -> its section in the page that this one replaces;
      it stays if it has runs and none of the paper has finished here.

  Raises:
    UsageError: If the runs of a row are not alike.
  """
  written = {
    paper.name: earlier[paper.name]
    if not any(run.is_finished for run in paper.runs)
    and sections.has_runs(earlier.get(paper.name, ''))
    else _section(paper, pictures.get(paper.name))
    for paper in papers
  }
  return (
    '\n\n'.join(
      [
        '# Reproductions',
        f'Written by `{command}` from run directories; do not edit. A paper '
        'without runs there keeps the section that it has.',
        'Accuracies are shares of held-out examples after the last round, mean '
        '± standard deviation over seeds. A figure with a target is the first '
        'evaluated round that reaches it. ε is that of one run, rounded up: '
        'choosing among runs is not paid for. Ours is the tighter of two '
        'accountants, so it may be below the published one at the same noise. '
        'Curves are means over seeds, bands their range, hollow marks what was '
        'published.',
        sections.overview(written),
        *written.values(),
      ]
    )
    + '\n'
  )


def _section(paper: Paper, picture: str | None) -> str:
  said = fields(paper.documentation)
  title = inspect.cleandoc(paper.documentation).splitlines()[0]
  rows = [(row, measure(row, paper.runs)) for row in paper.claim.rows]
  found = [measured for _, measured in rows if measured is not None]
  promises = {m.arm.promise for m in found if m.arm.promise.scope != 'none'}
  lines = [
    sections.markdown_row(sections.COLUMNS),
    sections.markdown_row(['---'] + ['--:'] * (len(sections.COLUMNS) - 1)),
  ]
  lines += [
    sections.markdown_row(_cells(row, measured, mixed=len(promises) > 1))
    for row, measured in rows
  ]
  parts = [
    f'## {paper.name}',
    title,
    f'{said["Paper"]} Published figures: {paper.claim.source}.',
    f'Differs: {said["Differs"]}',
    '\n'.join(lines),
    f'![Curves of {paper.name}]({picture})' if picture else '',
    _provenance(found, paper.runs),
    paper.claim.difference,
    f'`{said["Run"]}`',
  ]
  return '\n\n'.join(part for part in parts if part)


def _cells(
  row: config.Row, measured: Measured | None, *, mixed: bool
) -> list[str]:
  """Returns a row; its ε says what it is about where others are mixed in."""
  name = row.name
  if row.target is not None:
    name += f', rounds to {row.target:g}'
  published = '–'
  if row.published is not None:
    published = f'{row.published:g}' if row.target else f'{row.published:.3f}'
  stated = '–' if row.epsilon is None else f'{row.epsilon:g}'
  if measured is None:
    return [name, published, sections.NOT_RUN, stated, *['–'] * 4]
  rounds = {run.rounds for run in measured.arm.runs}
  minutes = np.mean([_minutes(run) for run in measured.arm.runs])
  promise = measured.arm.promise
  epsilon = tables.epsilon(
    measured.arm.epsilon, extrapolated=promise.extrapolated
  ).text
  if mixed and promise.scope != 'none':
    epsilon += f' ({promise.relation.replace("_", " ")})'
  return [
    name,
    published,
    _ours(row, measured),
    stated,
    epsilon,
    ', '.join(map(str, sorted(rounds))),
    str(len(measured.figures)),
    f'{minutes:.1f}',
  ]


def _ours(row: config.Row, measured: Measured) -> str:
  reached, all_runs = measured.reached, len(measured.figures)
  if not reached:
    best = max(run.evaluated[METRIC].max() for run in measured.arm.runs)
    text = f'not in {max(r.rounds for r in measured.arm.runs)}; best {best:.3f}'
  else:
    digits = 3 if row.target is None else 0
    text = f'{np.mean(reached):.{digits}f}'
    if len(reached) > 1:
      text += f' ± {np.std(reached, ddof=1):.{digits}f}'
    if len(reached) < all_runs:
      text += f' ({len(reached)} of {all_runs} seeds)'
  chosen = comparison.words(measured.chosen)
  return f'{text} ({chosen})' if chosen else text


def _minutes(run: reading.Run) -> float:
  if 'whole_seconds' not in run.metrics:
    return math.nan
  return float(run.metrics['whole_seconds'].sum()) / 60


def _provenance(
  measured: Sequence[Measured], ran: Sequence[reading.Run]
) -> str:
  """Returns when, how long, with what, and what the epsilons are about."""
  runs = [run for one in measured for run in one.arm.runs]
  if not runs:
    return ''
  dates = sorted({run.record['started'][:10] for run in runs})
  when = dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'
  pins = {tuple(sorted(run.record.get('versions', {}).items())) for run in runs}
  versions = ' / '.join(
    ', '.join(f'{name} {version}' for name, version in one)
    for one in sorted(pins)
  )
  about = sorted(
    {
      one.arm.promise.label
      for one in measured
      if one.arm.promise.scope != 'none'
    }
  )
  data = sorted({run.data for run in runs if run.data != 'real'})
  finished = [run for run in ran if run.is_finished]
  minutes = f'{np.nansum([_minutes(run) for run in finished]):.0f} minutes'
  return ' '.join(
    [
      f'Run on {when}: {len(finished)} runs, {minutes}. {versions}.',
      *([f'ε: {"; ".join(about)}.'] if about else []),
      *([f'Data: {", ".join(data)}.'] if data else []),
    ]
  )
