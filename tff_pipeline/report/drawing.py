"""Figures: drawn once, shown in light and dark, wide and on a phone.

Colours in an SVG for a page are CSS variables, so that a figure follows its
page; files on their own are black on white. The palette is that of Okabe and
Ito (2008), made for all kinds of colour vision; series differ in marker and
dash as well.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import enum
import io
import math
import pathlib
import re
import textwrap

import matplotlib
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
from matplotlib import transforms

Axes = mpl_axes.Axes

INK = '#1b1d21'
MUTED = '#5d6470'
GRID = '#e2e5ea'
PAPER = '#fefefe'
SERIES = (
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#b07a00',
  '#3a9bd9',
  '#7f7f86',
)
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
DASHES = ('-', (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))

_VARIABLES = {
  INK: 'var(--ink)',
  MUTED: 'var(--muted)',
  GRID: 'var(--grid)',
  PAPER: 'var(--paper)',
} | {color: f'var(--series-{i})' for i, color in enumerate(SERIES)}

_STYLE = {
  'axes.axisbelow': True,
  'axes.edgecolor': MUTED,
  'axes.facecolor': 'none',
  'axes.grid': True,
  'axes.labelcolor': INK,
  'axes.labelsize': 9,
  'axes.linewidth': 0.8,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlecolor': INK,
  'axes.titlelocation': 'left',
  'axes.titlesize': 9.5,
  'axes.titleweight': 'bold',
  'figure.facecolor': 'none',
  'font.family': ['DejaVu Sans'],
  'font.size': 9,
  'grid.color': GRID,
  'grid.linewidth': 0.8,
  'legend.fontsize': 8.5,
  'legend.frameon': False,
  'legend.labelcolor': INK,
  'lines.linewidth': 1.8,
  'lines.markersize': 5,
  'svg.fonttype': 'none',
  'text.color': INK,
  'xtick.color': MUTED,
  'xtick.labelcolor': INK,
  'xtick.labelsize': 8.5,
  'ytick.color': MUTED,
  'ytick.labelcolor': INK,
  'ytick.labelsize': 8.5,
}


class Shape(enum.Enum):
  """Where a figure is shown; panels are side by side in WIDE alone."""

  WIDE = 'wide'
  NARROW = 'narrow'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
  """A figure that can be drawn in any shape.

  Attributes:
    name: File name without suffix.
    title: What it shows.
    caption: How to read it, what intervals are, which epsilon is meant.
    panels: Number of axes.
    draw: Fills one list of axes.
    height: Of all rows of panels where it is WIDE, of one panel where it is
      NARROW, in inches.
    narrow_height: The same where it is NARROW; `None` for a little less.
    columns: Panels side by side where it is WIDE; `None` for all of them.
  """

  name: str
  title: str
  caption: str
  draw: Callable[[list[Axes], Shape], None]
  panels: int = 1
  height: float = 3.4
  narrow_height: float | None = None
  columns: int | None = None


def inline_svg(drawn: Figure, shape: Shape) -> str:
  """Returns an `<svg>` element whose colours are variables of its page."""
  text = _render(drawn, shape, kind='svg', paper='none').decode()
  text = text[text.index('<svg') :]
  text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
  prefix = f'{drawn.name}-{shape.value}-'
  text = re.sub(r'\bid="', f'id="{prefix}', text)
  text = re.sub(r'(url\(#|xlink:href="#)', rf'\1{prefix}', text)
  text = re.sub(r"'DejaVu Sans'[^;\"]*", 'var(--font)', text)
  for color, variable in _VARIABLES.items():
    text = text.replace(color, variable)
  size = re.compile(r'(<svg[^>]*?) (?:width|height)="[^"]*"', re.DOTALL)
  text = size.sub(r'\1', size.sub(r'\1', text))
  return text.replace('<svg', '<svg aria-hidden="true"', 1)


def save(
  drawn: Figure,
  folder: pathlib.Path,
  *,
  kinds: Sequence[str] = ('png', 'svg'),
) -> list[pathlib.Path]:
  """Writes a file of each kind, wide, on white; returns their paths."""
  paths = []
  for kind in kinds:
    path = folder / f'{drawn.name}.{kind}'
    path.write_bytes(_render(drawn, Shape.WIDE, kind=kind, paper=PAPER))
    paths.append(path)
  return paths


def _render(drawn: Figure, shape: Shape, *, kind: str, paper: str) -> bytes:
  with _style(drawn.name):
    wide = shape is Shape.WIDE
    columns = (drawn.columns or drawn.panels) if wide else 1
    rows = math.ceil(drawn.panels / columns)
    narrow = drawn.narrow_height or drawn.height * 0.92
    size = (9.4, drawn.height) if wide else (4.1, narrow * rows)
    canvas = mpl_figure.Figure(size, layout='constrained', facecolor=paper)
    canvas.get_layout_engine().set(wspace=0.06, hspace=0.05)
    axes = canvas.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[drawn.panels :]:
      unused.remove()
    drawn.draw(axes[: drawn.panels], shape)
    file = io.BytesIO()
    # No date, so that the same run gives the same file.
    metadata = {'Date': None} if kind == 'svg' else None
    canvas.savefig(file, format=kind, dpi=150, metadata=metadata)
  return file.getvalue()


@contextlib.contextmanager
def _style(salt: str) -> Iterator[None]:
  with matplotlib.rc_context(_STYLE | {'svg.hashsalt': salt}):
    yield


def color(index: int) -> str:
  """Returns the color of the series with this index."""
  return SERIES[index % len(SERIES)]


def look(index: int) -> dict[str, object]:
  """Returns color, marker and dash of a series, as keyword arguments."""
  return {
    'color': color(index),
    'marker': MARKERS[index % len(MARKERS)],
    'linestyle': DASHES[index % len(DASHES)],
    'markeredgecolor': PAPER,
    'markeredgewidth': 0.6,
  }


def wrapped(text: str, shape: Shape, *, factor: int = 1) -> str:
  """Returns a label on as many lines as it needs beside a figure."""
  width = 32 if shape is Shape.WIDE else 18
  return '\n'.join(textwrap.wrap(text, width * factor))


def label_ends(
  axes: Axes, ends: list[tuple[float, float, str, str]], *, size: float = 8.5
) -> None:
  """Writes labels beside the ends of lines, moved apart where they collide.

  Args:
    axes: With its limits final.
    ends: (x, y, text, color) of each line.
    size: Of the text, in points.
  """
  low, high = axes.get_ylim()
  points = axes.get_window_extent().height / axes.figure.dpi * 72
  lines = max((text.count('\n') + 1 for _, _, text, _ in ends), default=1)
  gap = (high - low) * size * 1.35 * lines / points
  order = sorted(range(len(ends)), key=lambda i: ends[i][1])
  places = _apart([ends[i][1] for i in order], gap, low=low, high=high)
  for i, y in zip(order, places, strict=True):
    x, end, text, shade = ends[i]
    axes.annotate(
      text,
      xy=(x, end),
      xytext=(1.02, (y - low) / (high - low)),
      textcoords='axes fraction',
      va='center',
      fontsize=size,
      color=INK,
      arrowprops={'arrowstyle': '-', 'color': shade, 'linewidth': 0.7},
      annotation_clip=False,
    )


def _apart(
  wanted: list[float], gap: float, *, low: float, high: float
) -> list[float]:
  """Returns ascending places, at least a gap apart, close to those wanted."""
  places: list[float] = []
  for y in wanted:
    places.append(max(y, places[-1] + gap if places else low))
  overflow = places[-1] - high if places else 0.0
  for i in reversed(range(len(places))):
    if overflow <= 0:
      break
    ceiling = high if i == len(places) - 1 else places[i + 1] - gap
    places[i] = min(places[i], ceiling)
  return places


def single_runs(
  axes: Axes,
  xs: Sequence[float],
  ys: Sequence[float],
  index: int,
  *,
  right: float = 0.0,
  up: float = 0.0,
) -> None:
  """Draws single runs as dots, a little beside their mean.

  Args:
    axes: The panel.
    xs: In data coordinates, as `ys`.
    ys: One for each x.
    index: Of the series, for its color.
    right: Offset in points; negative is to the left.
    up: Offset in points.
  """
  axes.plot(
    xs,
    ys,
    linestyle='none',
    marker='o',
    markersize=3.4,
    color=color(index),
    alpha=0.55,
    markeredgewidth=0,
    transform=transforms.offset_copy(
      axes.transData, fig=axes.figure, x=right, y=up, units='points'
    ),
  )


def whole_rounds(axes: Axes) -> None:
  """Labels the x axis as rounds, with whole numbers only."""
  axes.set_xlabel('round')
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=7))


def epsilon_ticks(low: float, high: float) -> list[float]:
  """Returns round epsilons between two, for a logarithmic axis.

  >>> epsilon_ticks(0.8, 30)
  [1.0, 2.0, 5.0, 10.0, 20.0]
  """
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  steps = (1, 2, 5) if last - first <= 3 else (1,)
  ticks = [s * 10.0**e for e in range(first, last + 1) for s in steps]
  return [tick for tick in ticks if low <= tick <= high]
