"""Figures of a sweep, or of any runs side by side."""

from collections.abc import Iterator, Sequence
import functools
import math

from tff_pipeline.privacy import statement as statements
from tff_pipeline.report import comparison
from tff_pipeline.report import drawing
from tff_pipeline.report import frontier
from tff_pipeline.report import tables

Arms = Sequence[comparison.Arm]

_MOST_CURVES = {drawing.Shape.WIDE: 12, drawing.Shape.NARROW: 6}


def build(arms: Arms, *, metric: str) -> Iterator[drawing.Figure]:
  """Yields the figures that these arms have enough for."""
  yield frontier.build(arms, metric=metric)
  leaf = _numeric_leaf(arms)
  if leaf is not None:
    yield _by_leaf(arms, metric, leaf)
  if len(arms) > 1:
    other = comparison.reference(arms)
    pairs = [
      arm
      for arm in arms
      if arm is not other
      and len(comparison.differences(arm, other, metric=metric))
    ]
    if pairs:
      yield _paired(pairs, other, metric)
  yield _curves(arms, metric)


def _numeric_leaf(arms: Arms) -> str | None:
  """Returns the leaf for an x axis: numeric, the noise if it differs."""
  numeric = [
    leaf
    for leaf in arms[0].changes
    if all(
      isinstance(arm.changes[leaf], int | float)
      for arm in arms
      if arm.changes[leaf] is not None
    )
    and len({a.changes[leaf] for a in arms} - {None}) > 1
  ]
  noise = [leaf for leaf in numeric if leaf.endswith('noise_multiplier')]
  return (noise or numeric or [None])[0]


def _by_leaf(arms: Arms, metric: str, leaf: str) -> drawing.Figure:
  name = comparison.short(leaf)
  unset = any(arm.changes[leaf] is None for arm in arms)
  return drawing.Figure(
    name='by_' + leaf.rpartition('.')[-1],
    title=f'{tables.metric_name(metric).capitalize()} by {name}',
    caption=f'{comparison.IN_FIGURES} ε of each setting is written with it, '
    + '; '.join(about.label for about in comparison.by_promise(arms))
    + '.'
    + (f' Arms without a {name} are left out.' if unset else ''),
    draw=functools.partial(_draw_by_leaf, arms, metric, leaf),
    height=3.9,
  )


def _draw_by_leaf(arms, metric, leaf, panels, shape) -> None:
  (axes,) = panels
  arms = [arm for arm in arms if arm.changes[leaf] is not None]
  series = {}
  for arm in arms:
    rest = {k: v for k, v in arm.changes.items() if k != leaf}
    series.setdefault(comparison.words(rest), []).append(arm)
  positions = sorted({arm.changes[leaf] for arm in arms})
  place = {value: i for i, value in enumerate(positions)}
  several = len(series) > 1
  for i, (label, members) in enumerate(series.items()):
    shift = (i - (len(series) - 1) / 2) * 0.12
    xs = [place[arm.changes[leaf]] + shift for arm in members]
    finals = [arm.final(metric) for arm in members]
    axes.errorbar(
      xs,
      [f.mean for f in finals],
      yerr=[0.0 if math.isnan(f.half_width) else f.half_width for f in finals],
      capsize=3.5,
      elinewidth=1.3,
      label=drawing.wrapped(label, shape, factor=2),
      **drawing.look(i),
    )
    for x, arm in zip(xs, members, strict=True):
      seeds = arm.by_seed(metric)
      drawing.single_runs(axes, [x] * len(seeds), seeds, i, right=-6)
  _ticks_with_epsilon(axes, arms, leaf, positions, shape)
  axes.set_ylabel(tables.metric_name(metric))
  if several:
    axes.legend(
      loc='lower left',
      bbox_to_anchor=(-0.02, 1.0),
      ncols=2 if shape is drawing.Shape.WIDE else 1,
      fontsize=8 if shape is drawing.Shape.WIDE else 7,
    )


def _ticks_with_epsilon(axes, arms, leaf, positions, shape) -> None:
  """Writes each setting's epsilon below it: a range if series differ."""
  labels = []
  for position in positions:
    found = [a for a in arms if a.changes[leaf] == position]
    shown = sorted({a.epsilon for a in found})
    ends = dict.fromkeys([shown[0], shown[-1]])
    words = '…'.join(map(_short_epsilon, ends))
    if any(a.promise.extrapolated for a in found):
      words += '*'
    labels.append(f'{comparison.value(position)}\nε {words}')
  size = 8.5 if shape is drawing.Shape.WIDE else 7
  axes.set_xticks(range(len(positions)), labels, fontsize=size)
  axes.set_xlim(-0.45, len(positions) - 0.55)
  starred = any(a.promise.extrapolated for a in arms)
  axes.set_xlabel(
    comparison.short(leaf)
    + ' (and the ε it gives)'
    + ('; *: extrapolated' if starred else '')
  )


def _short_epsilon(epsilon: float) -> str:
  return '∞' if math.isinf(epsilon) else statements.shown(epsilon)


def _paired(pairs: Arms, other: comparison.Arm, metric: str) -> drawing.Figure:
  shown = _short_epsilon(other.epsilon)
  return drawing.Figure(
    name='paired_differences',
    title='Differences within pairs',
    caption=f'{tables.metric_name(metric).capitalize()} less that of '
    f'{other.label} (ε = {shown}) with the same seed. Bars are '
    f'{comparison.LEVEL:.0%} t intervals of the mean over pairs, each by '
    'itself; dots are single pairs. ε: '
    + '; '.join(about.label for about in comparison.by_promise(pairs))
    + '.',
    draw=functools.partial(_draw_paired, pairs, other, metric),
    height=max(2.2, 0.9 + 0.45 * len(pairs)),
    narrow_height=max(2.2, 0.9 + _label_height(pairs) * len(pairs)),
  )


def _label_height(arms: Arms) -> float:
  """Returns the inches that the longest label takes on a phone."""
  labels = [drawing.wrapped(arm.label, drawing.Shape.NARROW) for arm in arms]
  return 0.2 + 0.15 * (1 + max(label.count('\n') + 1 for label in labels))


def _draw_paired(pairs, other, metric, panels, shape) -> None:
  (axes,) = panels
  labels = []
  for i, arm in enumerate(pairs):
    values = comparison.differences(arm, other, metric=metric)
    found = comparison.interval(values)
    drawing.single_runs(axes, values, [i] * len(values), 0, up=6)
    width = 0.0 if math.isnan(found.half_width) else found.half_width
    axes.errorbar(
      [found.mean],
      [i],
      xerr=[width],
      color=drawing.color(0),
      marker='D',
      markersize=5.5,
      capsize=3.5,
      elinewidth=1.5,
    )
    joint = '\n' if shape is drawing.Shape.NARROW else '  ·  '
    label = drawing.wrapped(arm.label, shape)
    labels.append(f'{label}{joint}ε {_short_epsilon(arm.epsilon)}')
  axes.axvline(0, color=drawing.INK, linewidth=1)
  axes.set_yticks(range(len(pairs)), labels)
  axes.set_ylim(len(pairs) - 0.5, -0.5)
  axes.grid(axis='y', visible=False)
  axes.set_xlabel(f'difference in {tables.metric_name(metric)}')


def _curves(arms: Arms, metric: str) -> drawing.Figure:
  wide, narrow = _MOST_CURVES.values()
  some = (
    f' Of {len(arms)} arms, {wide} are shown ({narrow} on a narrow screen).'
    if len(arms) > wide
    else ''
  )
  return drawing.Figure(
    name='curves',
    title=f'{tables.metric_name(metric).capitalize()} by round',
    caption='Mean over seeds; bands are the range of the runs. Each label has '
    'the ε after the last round, '
    + '; '.join(about.label for about in comparison.by_promise(arms))
    + f'.{some}',
    draw=functools.partial(_draw_curves, arms, metric),
    height=4.0,
  )


def _spread(arms: Arms, most: int) -> list[comparison.Arm]:
  """Returns at most so many arms, spread evenly over all."""
  if len(arms) <= most:
    return list(arms)
  step = (len(arms) - 1) / (most - 1)
  return [arms[round(i * step)] for i in range(most)]


def _draw_curves(arms, metric, panels, shape) -> None:
  (axes,) = panels
  ends = []
  arms = _spread(arms, _MOST_CURVES[shape] if len(arms) > 12 else 12)
  for i, arm in enumerate(arms):
    curve = comparison.mean_curve(arm, metric)
    if curve.empty:
      continue
    line = drawing.look(i) | {'marker': None}
    axes.plot(curve.index, curve['mean'], **line)
    every = max(1, len(curve) // 6)
    marks = curve.iloc[(i * every // max(1, len(arms))) :: every]
    axes.plot(
      marks.index, marks['mean'], **(drawing.look(i) | {'linestyle': 'none'})
    )
    if len(arm.runs) > 1:
      axes.fill_between(
        curve.index,
        curve['low'],
        curve['high'],
        color=drawing.color(i),
        alpha=0.1,
        linewidth=0,
      )
    marker = ' extrapolated' if arm.promise.extrapolated else ''
    price = f'ε {_short_epsilon(arm.epsilon)}{marker}'
    text = drawing.wrapped(f'{arm.brief} · {price}'.lstrip(' ·'), shape)
    last = curve['mean'].iloc[-1]
    ends.append((curve.index[-1], last, text, drawing.color(i)))
  drawing.whole_rounds(axes)
  axes.set_ylabel(tables.metric_name(metric))
  leaves = ', '.join(map(comparison.short, arms[0].changes)) if arms else ''
  if leaves:
    axes.text(
      1.0,
      1.06,
      drawing.wrapped(f'{leaves} · ε', shape),
      transform=axes.transAxes,
      fontsize=8,
      color=drawing.MUTED,
      ha='right' if shape is drawing.Shape.NARROW else 'left',
    )
  if ends:
    axes.margins(x=0.01)
    axes.figure.canvas.draw()
    drawing.label_ends(
      axes, ends, size=8.5 if shape is drawing.Shape.WIDE else 7
    )
