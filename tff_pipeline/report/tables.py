"""Tables as CSV, Markdown, LaTeX and cells for the page.

CSV holds numbers in full and infinity as `inf`; the others are for people. What
is in the tables of results: `result_tables`.
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


def _is_missing(value: Any) -> bool:
  return value is None or (isinstance(value, float) and math.isnan(value))


def _latex(text: str) -> str:
  return ''.join(_LATEX.get(character, character) for character in text)
