"""Pictures of a data set: sizes, labels, examples, and what privacy costs."""

from collections.abc import Mapping, Sequence
import pathlib

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from tff_pipeline.data import portrait as portraits

_DPI = 130
_INK = '#1f4e79'
_MARK = '#c44e17'
_MAX_ROWS = 60
_MAX_COLUMNS = 40
_CLIENTS_SHOWN = 5
_EXAMPLES_SHOWN = 8
_FEW_CLIENTS = 30
# Above this ratio of largest to median size, a linear axis shows one bar.
_SKEWED = 8.0


def _figure(
  width: float, height: float
) -> tuple[mpl_figure.Figure, mpl_axes.Axes]:
  figure = mpl_figure.Figure(figsize=(width, height), layout='constrained')
  axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  return figure, axes


def _save(figure: mpl_figure.Figure, path: pathlib.Path) -> pathlib.Path:
  figure.savefig(path, dpi=_DPI)
  return path


def client_sizes(sizes: np.ndarray, path: pathlib.Path) -> pathlib.Path:
  """Draws how many clients have how many examples; each client if few.

  Args:
    sizes: Examples of each client.
    path: The PNG file.
  """
  figure, axes = _figure(7, 3.6)
  middle = float(np.median(sizes))
  if len(sizes) <= _FEW_CLIENTS:
    axes.bar(np.arange(len(sizes)), sizes, color=_INK)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set_xlabel('client')
    axes.set_ylabel('examples')
    axes.axhline(middle, color=_MARK, linestyle='--')
  else:
    _histogram(axes, sizes, middle)
    axes.axvline(middle, color=_MARK, linestyle='--')
  axes.set_title(
    f'{len(sizes):,} clients, {sizes.sum():,} examples; median {middle:g} '
    'a client (dashed)',
    fontsize=11,
  )
  return _save(figure, path)


def _histogram(axes: mpl_axes.Axes, sizes: np.ndarray, middle: float) -> None:
  low, high = int(sizes.min()), int(sizes.max())
  if low > 0 and high > _SKEWED * max(middle, 1.0):
    # Between whole numbers: narrower bars would leave gaps between them.
    edges = np.unique(np.geomspace(low, high + 1, 31).round()) - 0.5
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  else:
    step = max(1, -(-(high - low + 1) // 30))
    edges = np.arange(low, high + step + 1, step) - 0.5
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.hist(sizes, bins=edges, color=_INK, rwidth=1.0, edgecolor='white')
  axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set_xlabel('examples of a client')
  axes.set_ylabel('clients')


def labels(
  portrait: portraits.Portrait,
  class_names: Sequence[str],
  path: pathlib.Path,
) -> pathlib.Path:
  """Draws the share of each label in each client, and in all of them.

  Clients with the same most frequent label stand together.

  Args:
    portrait: With label counts.
    class_names: What the classes are called.
    path: The PNG file.
  """
  some = np.flatnonzero(portrait.label_counts.sum(axis=1))
  some = some[_spread(len(some), _MAX_ROWS)]
  rows = portrait.label_counts[some]
  totals = portrait.label_counts.sum(axis=0)
  columns = np.sort(np.argsort(-totals, kind='stable')[:_MAX_COLUMNS])
  shares = rows / rows.sum(axis=1, keepdims=True)
  order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
  shares = shares[order]
  width = max(6.0, 2.5 + 0.32 * len(columns))
  figure = mpl_figure.Figure(figsize=(width, 6.4), layout='constrained')
  top, bottom = figure.subplots(
    2, 1, sharex=True, gridspec_kw={'height_ratios': [1, 3.4]}
  )
  places = np.arange(len(columns))
  top.bar(places, totals[columns] / totals.sum(), color=_INK)
  top.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  top.spines[['top', 'right']].set_visible(False)
  top.set_ylabel('share of all')
  of_all = '' if len(columns) == len(totals) else ', the most frequent ones'
  top.set_title(f'Labels of all clients, and of {len(rows)} of them{of_all}')
  image = bottom.imshow(
    shares[:, columns],
    aspect='auto',
    cmap='Blues',
    vmin=0.0,
    vmax=max(float(shares.max()), 1e-9),
    interpolation='nearest',
  )
  bottom.set_ylabel('clients')
  few = len(rows) <= _FEW_CLIENTS
  bottom.set_yticks(
    np.arange(len(rows)) if few else [],
    [str(n) for n in portrait.shown[some[order]]] if few else [],
  )
  bottom.set_xlabel('label')
  names = [_shortened(class_names[c]) for c in columns]
  slanted = max(map(len, names)) > 3
  bottom.set_xticks(
    places,
    names,
    rotation=45 if slanted else 0,
    ha='right' if slanted else 'center',
    rotation_mode='anchor',
  )
  bar = figure.colorbar(image, ax=bottom, label='share of the client')
  bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  return _save(figure, path)


def _spread(total: int, most: int) -> np.ndarray:
  """Returns at most so many of the first `total` numbers, evenly spread."""
  chosen = np.linspace(0, total - 1, min(total, most))
  return np.unique(chosen.round().astype(int))


def _shortened(name: str, length: int = 14) -> str:
  return name if len(name) <= length else name[: length - 1] + '…'


def examples(
  portrait: portraits.Portrait,
  class_names: Sequence[str],
  path: pathlib.Path,
  *,
  feature_names: Sequence[str] = (),
) -> pathlib.Path | None:
  """Draws examples of some clients, a row each; or how features spread.

  Args:
    portrait: Of anything but tokens.
    class_names: What the classes are called; empty if labels are no classes.
    path: The PNG file.
    feature_names: What the features are called, if they have names.

  Returns:
    The path; `None` for tokens, which are no picture.
  """
  some = {
    int(client): one
    for client, one in zip(portrait.shown, portrait.examples, strict=True)
    if len(one)
  }
  if portrait.kind is portraits.Kind.TOKENS or not some:
    return None
  pooled = np.concatenate([one.x for one in some.values()])
  sides = portraits.image_shape(pooled)
  if portrait.kind is portraits.Kind.FEATURES and sides is None:
    return _features(pooled, path, feature_names)
  some = dict(list(some.items())[:_CLIENTS_SHOWN])
  columns = min(_EXAMPLES_SHOWN, max(map(len, some.values())))
  figure = mpl_figure.Figure(
    figsize=(1.15 * columns + 0.9, 1.32 * len(some) + 0.4),
    layout='constrained',
  )
  grid = figure.subplots(len(some), columns, squeeze=False)
  for axes in grid.flat:
    axes.set_axis_off()
  for (client, one), row in zip(some.items(), grid, strict=True):
    chosen = _spread(len(one), columns)
    for axes, x, y in zip(row, one.x[chosen], one.y[chosen], strict=False):
      _draw_example(axes, x if sides is None else x.reshape(sides))
      if class_names and np.ndim(y) == 0:
        axes.set_title(_shortened(class_names[int(y)], 12), fontsize=8, pad=2)
    row[0].text(
      -0.12,
      0.5,
      f'client {client}',
      transform=row[0].transAxes,
      rotation=90,
      va='center',
      ha='right',
      fontsize=8,
    )
  return _save(figure, path)


def _draw_example(axes: mpl_axes.Axes, x: np.ndarray) -> None:
  if x.ndim == 2 and x.dtype != np.uint8 and x.shape[1] <= 16 < x.shape[0]:
    axes.plot(x, linewidth=0.7)  # Time by channel.
    return
  grey = x.ndim == 2 or x.shape[2] == 1
  axes.imshow(
    x.reshape(x.shape[:2]) if grey else x, cmap='gray' if grey else None
  )


def _features(
  x: np.ndarray, path: pathlib.Path, names: Sequence[str]
) -> pathlib.Path:
  """Draws the middle half, and the middle nine tenths, of each feature."""
  x = x.reshape(len(x), -1)[:, :_MAX_COLUMNS]
  low, lower, middle, upper, high = np.quantile(
    x, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0
  )
  places = np.arange(x.shape[1])
  figure, axes = _figure(max(6.0, 1.5 + 0.26 * len(places)), 3.8)
  axes.vlines(places, low, high, color=_INK, linewidth=1, label='middle 90%')
  axes.vlines(places, lower, upper, color=_INK, linewidth=5, label='middle 50%')
  axes.plot(places, middle, '_', color=_MARK, markersize=9, label='median')
  axes.set_xlabel('feature, as the model sees it')
  axes.set_ylabel('value')
  if names:
    shown = [_shortened(name, 18) for name in names[: len(places)]]
    axes.set_xticks(
      places, shown, rotation=45, ha='right', rotation_mode='anchor'
    )
  else:
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  figure.legend(loc='outside upper center', ncols=3, frameon=False)
  return _save(figure, path)


def prices(
  epsilons: Mapping[float, Mapping[int, float]],
  path: pathlib.Path,
  *,
  title: str,
) -> pathlib.Path:
  """Draws epsilon by cohort size, a line for each noise multiplier.

  Args:
    epsilons: Noise multiplier -> cohort size -> epsilon.
    path: The PNG file.
    title: What the figures are about: rounds, delta, relation.
  """
  figure, axes = _figure(7, 4.2)
  for number, (noise, line) in enumerate(epsilons.items()):
    shade = 1.0 - 0.75 * number / max(len(epsilons) - 1, 1)
    (drawn,) = axes.plot(
      list(line), list(line.values()), 'o-', color=_INK, alpha=shade
    )
    axes.annotate(
      f'z = {noise:g}',
      (list(line)[-1], list(line.values())[-1]),
      xytext=(6, 0),
      textcoords='offset points',
      va='center',
      color=drawn.get_color(),
    )
  axes.set_xscale('log')
  axes.set_yscale('log')
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  sizes = list(next(iter(epsilons.values())))
  axes.set_xticks(sizes, [f'{size:,}' for size in sizes])
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.grid(axis='y', alpha=0.3)
  axes.set_xlabel('expected clients in a round')
  axes.set_ylabel('epsilon')
  axes.set_title(title, fontsize=10)
  axes.margins(x=0.12)
  return _save(figure, path)
