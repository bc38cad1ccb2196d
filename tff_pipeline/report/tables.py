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
  promises = {arm.promise for arm in arms} - {_NOTHING}
  headings = [comparison.short(leaf) for leaf in leaves] or ['runs']
  rows, raw_rows = [], []
  for arm in arms:
    found = arm.final(metric)
    seeds = len(arm.by_seed(metric))
    rounds = max(run.rounds for run in arm.runs)
    extrapolated = arm.promise.extrapolated
    values = [arm.changes[leaf] for leaf in leaves] or [arm.label]
    rows.append(
      (
        *(Cell(v, comparison.value(v)) for v in values),
        epsilon(arm.epsilon, extrapolated=extrapolated),
        Cell(arm.promise.label, arm.promise.label),
        with_interval(found),
        Cell(seeds, str(seeds)),
        Cell(rounds, str(rounds)),
      )
    )
    raw_rows.append(
      dict(zip(leaves or ['runs'], values, strict=True))
      | {
        'epsilon': arm.epsilon,
        **dataclasses.asdict(arm.promise),
        metric: found.mean,
        f'{metric}_low': found.low,
        f'{metric}_high': found.high,
        'seeds': seeds,
        'rounds': rounds,
      }
      | ({'trials': trials} if trials else {})
    )
  return Table(
    name='results',
    title='Results',
    caption=_results_caption(metric, len(promises), trials),
    columns=(
      *headings,
      'ε',
      'ε is about',
      metric_name(metric),
      'seeds',
      'rounds',
    ),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


_NOTHING = comparison.Promise('none', '', 0.0, False)


def _results_caption(metric: str, promises: int, trials: int | None) -> str:
  text = (
    f'{metric_name(metric).capitalize()} after the last round: mean over seeds '
    f'± half of its {comparison.LEVEL:.0%} t interval. ε is that of one run, '
    'rounded up.'
  )
  if promises > 1:
    text += (
      ' The ε of this table are about different things, as its column says: '
      'they must not be compared as numbers.'
    )
  if trials:
    text += f' Chosen among {trials} trials, which no ε here pays for.'
  return text


def paired(
  arms: Sequence[comparison.Arm], other: comparison.Arm, *, metric: str
) -> Table:
  """Returns differences within pairs from one arm."""
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
        epsilon(arm.epsilon, extrapolated=arm.promise.extrapolated),
        with_interval(found, sign='+'),
        Cell(len(values), str(len(values))),
        Cell(shares, shares),
      )
    )
    raw_rows.append(
      {
        'arm': arm.label,
        'reference': other.label,
        'epsilon': arm.epsilon,
        'reference_epsilon': other.epsilon,
        'difference': found.mean,
        'difference_low': found.low,
        'difference_high': found.high,
        'pairs': len(values),
        'shared': shares,
      }
    )
  shown = epsilon(other.epsilon, extrapolated=other.promise.extrapolated).text
  return Table(
    name='paired_differences',
    title='Differences within pairs',
    caption=f'{metric_name(metric).capitalize()} less that of {other.label} '
    f'(ε = {shown}) with the same seed: mean over pairs ± half of its '
    f'{comparison.LEVEL:.0%} t interval. Each interval by itself has that '
    'level; nothing is corrected for their number.',
    columns=('arm', 'ε', 'difference', 'pairs', 'a pair shares'),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def to_target(
  arms: Sequence[comparison.Arm], *, metric: str, target: float
) -> Table:
  """Returns the rounds and the epsilon that a target value took."""
  rows, raw_rows = [], []
  for arm in arms:
    found = comparison.reached(arm, metric=metric, target=target)
    rows.append(
      (
        Cell(arm.label, arm.label),
        Cell(found.runs[0], f'{found.runs[0]} of {found.runs[1]}'),
        number(found.rounds, 1),
        epsilon(found.epsilon, extrapolated=arm.promise.extrapolated),
        Cell(arm.promise.label, arm.promise.label),
      )
    )
    raw_rows.append(
      {
        'arm': arm.label,
        'target': target,
        'runs_that_reached': found.runs[0],
        'runs': found.runs[1],
        'rounds': found.rounds,
        'epsilon': found.epsilon,
        **dataclasses.asdict(arm.promise),
      }
    )
  sign = '≥' if reading.is_higher_better(metric) else '≤'
  return Table(
    name='to_target',
    title=f'Rounds and ε to {metric_name(metric)} {sign} {target:g}',
    caption='First evaluated round at the target: mean over the runs that '
    'reached it; ε is the largest among them at that round. Stopping there by '
    'looking at held-out data is a choice that ε does not cover.',
    columns=('arm', 'reached by', 'rounds', 'ε', 'ε is about'),
    rows=tuple(rows),
    raw=_by_column(raw_rows),
  )


def runs(found: Sequence[reading.Run], *, metric: str) -> Table:
  """Returns a row for each run."""
  names = comparison.differing(found)
  rows, raw_rows = [], []
  for run in found:
    about = comparison.promise(run.statement)
    values = [run.leaves.get(name) for name in names]
    final = run.final(metric)
    rows.append(
      (
        Cell(run.name, run.name),
        *(Cell(v, comparison.value(v)) for v in values),
        Cell(run.leaves['seed'], str(run.leaves['seed'])),
        epsilon(run.epsilon, extrapolated=about.extrapolated),
        Cell(about.label, about.label),
        number(final),
        Cell(run.rounds, str(run.rounds)),
        Cell(run.status, run.status),
      )
    )
    raw_rows.append(
      {'run': run.name}
      | dict(zip(names, values, strict=True))
      | {'seed': run.leaves['seed'], 'epsilon': run.epsilon}
      | dataclasses.asdict(about)
      | {metric: final, 'rounds': run.rounds, 'status': run.status}
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
      'ε',
      'ε is about',
      metric_name(metric),
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
