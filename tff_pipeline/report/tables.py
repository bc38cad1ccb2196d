"""Tables as CSV, Markdown, LaTeX and cells for the page.

No accuracy without its epsilon: the tables of results are built here, and each
has both. CSV holds numbers in full and infinity as `inf`; the others are for
people.
"""

from collections.abc import Sequence
import csv
import dataclasses
import io
import math
import pathlib
from typing import Any

from tff_pipeline.privacy import statement as statements
from tff_pipeline.report import comparison
from tff_pipeline.report import reading

INFINITY = '∞'
_LATEX = {
  '\\': r'\textbackslash{}',
  '&': r'\&',
  '%': r'\%',
  '$': r'\$',
  '#': r'\#',
  '_': r'\_',
  '{': r'\{',
  '}': r'\}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  INFINITY: r'$\infty$',
  'ε': r'$\varepsilon$',
  'δ': r'$\delta$',
  '±': r'$\pm$',
  '−': r'$-$',
  '–': '--',
  '×': r'$\times$',
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A value, and how people see it."""

  value: Any
  text: str

  @property
  def is_number(self) -> bool:
    """Whether the cell is set flush right."""
    return isinstance(self.value, int | float)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """A table with what is needed to believe it.

  Attributes:
    name: File name without suffix.
    title: What it shows.
    caption: Intervals, seeds, which epsilon.
    columns: Headings for people.
    rows: Cells of the columns.
    raw: Heading -> values, one for each row, for CSV.
  """

  name: str
  title: str
  caption: str
  columns: tuple[str, ...]
  rows: tuple[tuple[Cell, ...], ...]
  raw: dict[str, list[Any]]


def epsilon(value: float, *, extrapolated: bool) -> Cell:
  """Returns the cell of an epsilon; rounded up, marked if extrapolated.

  >>> epsilon(2.7211, extrapolated=True).text
  '2.73 (extrapolated)'
  >>> epsilon(float('inf'), extrapolated=False).text
  '∞'
  """
  if math.isnan(value):
    return Cell(value, '–')
  text = INFINITY if math.isinf(value) else statements.shown(value)
  return Cell(value, text + (' (extrapolated)' if extrapolated else ''))


def number(value: float, digits: int = 4) -> Cell:
  """Returns the cell of a measurement."""
  if not math.isfinite(value):
    return Cell(value, '–' if math.isnan(value) else str(value))
  return Cell(value, f'{value:.{digits}f}')


def with_interval(found: comparison.Interval, *, sign: str = '') -> Cell:
  """Returns the cell of a mean with its interval."""
  if math.isnan(found.mean):
    return Cell(found.mean, '–')
  text = f'{found.mean:{sign}.4f}'.replace('-', '−')
  if not math.isnan(found.half_width):
    text += f' ± {found.half_width:.4f}'
  return Cell(found.mean, text)


def metric_name(metric: str) -> str:
  """Returns a column's name for people.

  >>> metric_name('test_accuracy'), metric_name('unnoised_train_loss')
  ('held-out accuracy', 'training loss (un-noised, not covered)')
  """
  if metric.startswith('unnoised_'):
    words = metric.removeprefix('unnoised_').replace('train_', 'training ')
    return words.replace('_', ' ') + ' (un-noised, not covered)'
  return metric.replace(reading.TEST, 'held-out ').replace('_', ' ')


def results(
  arms: Sequence[comparison.Arm], *, metric: str, trials: int | None = None
) -> Table:
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
        *(Cell(v, comparison.value(v)) for v in values),
        with_interval(found),
        _epsilon_of(arm),
        *about.cells(arm),
        Cell(seeds, str(seeds)),
        Cell(rounds, str(rounds)),
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
    f'{metric_name(metric).capitalize()} after the last round: mean over seeds '
    f'± half of its {comparison.LEVEL:.0%} t interval. ε is that of one run, '
    f'rounded up{about.in_words}.'
  )
  if trials:
    caption += f' Chosen among {trials} trials, which no ε here pays for.'
  headings = [comparison.short(leaf) for leaf in leaves] or ['runs']
  return Table(
    name='results',
    title='Results',
    caption=caption,
    columns=(
      *headings,
      metric_name(metric),
      'ε',
      *about.heading,
      'seeds',
      'rounds',
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

  def cells(self, arm: comparison.Arm) -> tuple[Cell, ...]:
    """Returns the cells of a row."""
    label = arm.promise.label
    return (Cell(label, label),) if self._differs else ()


def _epsilon_of(arm: comparison.Arm) -> Cell:
  return epsilon(arm.epsilon, extrapolated=arm.promise.extrapolated)


def paired(
  arms: Sequence[comparison.Arm], other: comparison.Arm, *, metric: str
) -> Table:
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
        Cell(arm.label, arm.label),
        with_interval(found, sign='+'),
        _epsilon_of(arm),
        *about.cells(arm),
        Cell(len(values), str(len(values))),
        Cell(shares, shares),
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
  return Table(
    name='paired_differences',
    title='Differences within pairs',
    caption=f'{metric_name(metric).capitalize()} less that of {other.label} '
    f'(ε = {_epsilon_of(other).text}) with the same seed: mean over pairs ± '
    f'half of its {comparison.LEVEL:.0%} t interval. Each interval by itself '
    f'has that level; nothing is corrected for their number. ε of one run'
    f'{about.in_words}.',
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
) -> Table:
  """Returns the rounds and the epsilon that a target value took."""
  about = _About(arms)
  rows, raw_rows = [], []
  for arm in arms:
    found = comparison.reached(arm, metric=metric, target=target)
    rows.append(
      (
        Cell(arm.label, arm.label),
        number(found.rounds, 1),
        epsilon(found.epsilon, extrapolated=arm.promise.extrapolated),
        *about.cells(arm),
        Cell(found.runs[0], f'{found.runs[0]} of {found.runs[1]}'),
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
  return Table(
    name='to_target',
    title=f'Rounds and ε to {metric_name(metric)} {sign} {target:g}',
    caption='First evaluated round at the target: mean over the runs that '
    'reached it; ε is the largest among them at that round'
    f'{about.in_words}. Stopping there by looking at held-out data is a choice '
    'that ε does not cover.',
    columns=('arm', 'rounds', 'ε', *about.heading, 'reached by'),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def configs(arms: Sequence[comparison.Arm]) -> Table:
  """Returns the leaves in which arms differ, a column for each arm."""
  leaves = list(arms[0].changes)
  headings = [f'arm {number}' for number in range(1, len(arms) + 1)]
  by_leaf = {leaf: [arm.changes[leaf] for arm in arms] for leaf in leaves}
  rows = tuple(
    (
      Cell(leaf, leaf),
      *(Cell(str(v), comparison.value(v)) for v in values),
    )
    for leaf, values in by_leaf.items()
  )
  promised = (
    Cell('ε', 'ε, and what it is about'),
    *(
      Cell(a.label, f'{_epsilon_of(a).text} ({a.promise.label})') for a in arms
    ),
  )
  raw = {'leaf': leaves} | {
    heading: [arm.changes[leaf] for leaf in leaves]
    for heading, arm in zip(headings, arms, strict=True)
  }
  return Table(
    name='configs',
    title='What differs in their configs',
    caption='All other leaves are the same in all runs, but for seeds.',
    columns=('leaf', *headings),
    rows=(*rows, promised),
    raw=raw,
  )


def runs(found: Sequence[reading.Run], *, metric: str) -> Table:
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
        Cell(run.name, run.name),
        *(Cell(v, comparison.value(v)) for v in values),
        Cell(seed, str(seed)),
        number(final),
        epsilon(run.epsilon, extrapolated=about.extrapolated),
        Cell(about.label, about.label),
        Cell(run.rounds, str(run.rounds)),
        Cell(run.status, run.status),
      )
    )
    raw_rows.append(
      {'run': run.name}
      | dict(zip(names, values, strict=True))
      | {'seed': seed, metric: final, 'epsilon': run.epsilon}
      | dataclasses.asdict(about)
      | {'rounds': run.rounds, 'status': run.status}
    )
  return Table(
    name='runs',
    title='Every run',
    caption='One row for each run directory; the columns after its name are '
    'the leaves in which configs differ.',
    columns=(
      'run',
      *map(comparison.short, names),
      'seed',
      metric_name(metric),
      'ε',
      'ε is about',
      'rounds',
      'status',
    ),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def to_csv(table: Table) -> str:
  """Returns raw values under plain names; infinity is `inf`, none is empty."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(table.raw)
  for row in zip(*table.raw.values(), strict=True):
    writer.writerow(['' if _is_missing(value) else value for value in row])
  return file.getvalue()


def to_markdown(table: Table) -> str:
  """Returns a GitHub table with its caption."""

  def line(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(c.replace('|', '\\|') for c in cells) + ' |'

  rows = [line([cell.text for cell in row]) for row in table.rows]
  rules = ['--:' if right else '---' for right in flush_right(table)]
  return '\n'.join(
    [line(table.columns), line(rules), *rows, '', table.caption, '']
  )


def to_latex(table: Table) -> str:
  """Returns a `table` environment; it needs the package booktabs."""

  def line(cells: Sequence[str]) -> str:
    return '  ' + ' & '.join(map(_latex, cells)) + r' \\'

  align = ''.join('r' if right else 'l' for right in flush_right(table))
  return '\n'.join(
    [
      r'\begin{table}',
      r'\centering',
      rf'\caption{{{_latex(table.caption)}}}',
      rf'\begin{{tabular}}{{{align}}}',
      r'\toprule',
      line(table.columns),
      r'\midrule',
      *(line([cell.text for cell in row]) for row in table.rows),
      r'\bottomrule',
      r'\end{tabular}',
      r'\end{table}',
      '',
    ]
  )


FORMATS = {'csv': to_csv, 'md': to_markdown, 'tex': to_latex}


def save(table: Table, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes the table in every format; returns the paths."""
  paths = []
  for suffix, convert in FORMATS.items():
    path = folder / f'{table.name}.{suffix}'
    path.write_text(convert(table), encoding='utf-8')
    paths.append(path)
  return paths


def flush_right(table: Table) -> list[bool]:
  """Returns, for each column, whether all its cells are numbers."""
  return [
    bool(table.rows) and all(row[i].is_number for row in table.rows)
    for i in range(len(table.columns))
  ]


def _by_column(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
  names = dict.fromkeys(name for row in rows for name in row)
  return {name: [row.get(name) for row in rows] for name in names}


def _is_missing(value: Any) -> bool:
  return value is None or (isinstance(value, float) and math.isnan(value))


def _latex(text: str) -> str:
  return ''.join(_LATEX.get(character, character) for character in text)
