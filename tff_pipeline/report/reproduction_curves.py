"""Curves of a reproduction: what its rows' runs measured, round by round.

A row named 'a, b' is the line `b` in the panel `a`; so are its names read in
the table. Lines of the same name look alike in all panels.
"""

from collections.abc import Sequence
import functools
import math

from tff_pipeline import config
from tff_pipeline.report import comparison
from tff_pipeline.report import drawing
from tff_pipeline.report import reproductions
from tff_pipeline.report import tables

_COLUMNS = 3
_PANEL_HEIGHT = 2.3
_BELOW_TARGET = 0.12

Rows = Sequence[tuple[config.Row, reproductions.Measured]]


def figure(paper: reproductions.Paper) -> drawing.Figure | None:
  """Returns the curves of all rows that were run; `None` if none was.

  Raises:
    UsageError: If the runs of a row are not alike.
  """
  measured = [
    (row, reproductions.measure(row, paper.runs)) for row in paper.claim.rows
  ]
  rows = [(row, found) for row, found in measured if found is not None]
  if not rows:
    return None
  panels = list(dict.fromkeys(_place(row)[0] for row, _ in rows))
  columns = min(_COLUMNS, len(panels))
  height = _PANEL_HEIGHT * math.ceil(len(panels) / columns) + 0.9
  return drawing.Figure(
    name=paper.name,
    title=paper.name,
    caption='Mean over seeds; bands are the range of the runs.',
    draw=functools.partial(_draw, rows, paper.claim.metric, panels),
    panels=len(panels),
    columns=columns,
    height=max(height, 3.4),
  )


def _place(row: config.Row) -> tuple[str, str]:
  """Returns a row's panel and line.

  >>> _place(config.Row(name='(0, 0), 50% stragglers, mu 1'))
  ('(0, 0), 50% stragglers', 'mu 1')
  """
  panel, _, line = row.name.rpartition(', ')
  return panel, line


def _draw(
  rows: Rows,
  metric: str,
  names: Sequence[str],
  panels: list[drawing.Axes],
  shape: drawing.Shape,
) -> None:
  del shape
  axes_of = dict(zip(names, panels, strict=True))
  lines = list(dict.fromkeys(_place(row)[1] for row, _ in rows))
  shown = {}
  for row, measured in rows:
    panel, line = _place(row)
    axes, index = axes_of[panel], lines.index(line)
    shown[line] = _draw_row(axes, row, measured, metric, index)
  for name, axes in axes_of.items():
    axes.set_title(name)
    drawing.whole_rounds(axes)
    axes.set_ylabel(tables.metric_name(metric))
  if metric == reproductions.METRIC:
    low, high = zip(*(axes.get_ylim() for axes in panels), strict=True)
    for axes in panels:
      axes.set_ylim(min(low), max(high))
  targets = [row.target for row, _ in rows if row.target is not None]
  if targets:  # What matters is how a curve comes up to them.
    for axes in panels:
      axes.set_ylim(min(targets) - _BELOW_TARGET, 1.0)
  panels[0].figure.legend(
    shown.values(),
    shown.keys(),
    loc='outside lower center',
    ncols=min(3, len(shown)),
  )


def _draw_row(
  axes: drawing.Axes,
  row: config.Row,
  measured: reproductions.Measured,
  metric: str,
  index: int,
) -> object:
  """Draws a row's mean, range and published figure; returns its line."""
  curve = comparison.mean_curve(measured.arm, metric)
  look = drawing.look(index) | {'marker': None}
  (line,) = axes.plot(curve.index, curve['mean'], **look)
  if len(measured.arm.runs) > 1:
    axes.fill_between(
      curve.index,
      curve['low'],
      curve['high'],
      color=drawing.color(index),
      alpha=0.15,
      linewidth=0,
    )
  if row.target is not None:
    axes.axhline(row.target, color=drawing.MUTED, linewidth=0.8)
  if row.published is not None and metric == reproductions.METRIC:
    place = (
      (curve.index[-1], row.published)
      if row.target is None
      else (row.published, row.target)
    )
    axes.plot(
      *place,
      marker=drawing.MARKERS[index % len(drawing.MARKERS)],
      markerfacecolor='none',
      markeredgecolor=drawing.color(index),
      markersize=7,
      linestyle='none',
      clip_on=False,
    )
  return line
