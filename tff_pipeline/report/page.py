"""One self-contained HTML page: no script, no network, light and dark."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any
import urllib.parse

import jinja2

from tff_pipeline.report import drawing
from tff_pipeline.report import tables

_TEMPLATES = pathlib.Path(__file__).parent / 'templates'
_LABELS = {'csv': 'CSV', 'md': 'Markdown', 'tex': 'LaTeX'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """A figure to see first. An accuracy has its epsilon in `beside`.

  Attributes:
    label: What it is.
    value: The figure.
    beside: What it must not be read without.
    wide: Whether it takes two columns.
  """

  label: str
  value: str
  beside: str = ''
  wide: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fold:
  """Something to unfold: facts, a list, or a table."""

  title: str
  facts: Sequence[tuple[str, str]] = ()
  items: Sequence[str] = ()
  table: tables.Table | None = None
  open: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """A part of the page, in this order: words, figures, tables, facts, folds."""

  id: str
  title: str
  paragraphs: Sequence[str] = ()
  figures: Sequence[drawing.Figure] = ()
  data: Sequence[tables.Table] = ()
  facts: Sequence[tuple[str, str]] = ()
  folds: Sequence[Fold] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
  """A whole page.

  Attributes:
    title: Heading and window title.
    kicker: One small line above the title.
    lead: What is to be known first.
    warnings: What is wrong or missing.
    cards: Figures to see first.
    sections: The rest.
    footer: Where it comes from.
  """

  title: str
  kicker: str
  lead: str
  warnings: Sequence[str] = ()
  cards: Sequence[Card] = ()
  sections: Sequence[Section] = ()
  footer: str = ''

  @property
  def figures(self) -> list[drawing.Figure]:
    """All figures of the page."""
    return [f for section in self.sections for f in section.figures]

  @property
  def data(self) -> list[tables.Table]:
    """All tables of the page that are not folded away."""
    return [t for section in self.sections for t in section.data]


def to_html(page: Page) -> str:
  """Returns the page; everything that it shows is inside."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
  )
  style = (_TEMPLATES / 'page.css').read_text(encoding='utf-8')
  return environment.get_template('page.html').render(
    title=page.title,
    kicker=page.kicker,
    lead=page.lead,
    warnings=page.warnings,
    cards=page.cards,
    sections=[_section(section) for section in page.sections],
    footer=page.footer,
    style=style,
  )


def _section(section: Section) -> Mapping[str, Any]:
  return {
    'id': section.id,
    'title': section.title,
    'paragraphs': section.paragraphs,
    'figures': [_figure(f) for f in section.figures],
    'tables': [_table(t) for t in section.data],
    'facts': section.facts,
    'details': [
      {
        'title': fold.title,
        'facts': fold.facts,
        'points': fold.items,
        'table': fold.table and _table(fold.table),
        'open': fold.open,
      }
      for fold in section.folds
    ],
  }


def _figure(drawn: drawing.Figure) -> Mapping[str, str]:
  return {
    'name': drawn.name,
    'title': drawn.title,
    'caption': drawn.caption,
    'wide': drawing.inline_svg(drawn, drawing.Shape.WIDE),
    'narrow': drawing.inline_svg(drawn, drawing.Shape.NARROW),
  }


def _table(table: tables.Table) -> Mapping[str, Any]:
  return {
    'name': table.name + '-table',
    'title': table.title,
    'caption': table.caption,
    'columns': table.columns,
    'rows': table.rows,
    'right': tables.flush_right(table),
    'downloads': list(_downloads(table)),
  }


def _downloads(table: tables.Table) -> Iterable[Mapping[str, str]]:
  for suffix, convert in tables.FORMATS.items():
    yield {
      'file': f'{table.name}.{suffix}',
      'label': _LABELS[suffix],
      'href': 'data:text/plain;charset=utf-8,'
      + urllib.parse.quote(convert(table)),
    }
