"""The figure that the project is about: a metric against its epsilon.

Epsilons about different things (`comparison.Promise`) get panels of their own:
they are not on one axis.
"""

from collections.abc import Sequence
import functools
import math

from tff_pipeline.report import comparison
from tff_pipeline.report import drawing
from tff_pipeline.report import tables

Arms = Sequence[comparison.Arm]

_MECHANISM = 'privacy.mechanism'
_RELATION = 'privacy.relation'


def build(arms: Arms, *, metric: str) -> drawing.Figure:
  """Returns the figure of a metric against epsilon, a point for each arm."""
  groups = comparison.by_promise(arms)
  return drawing.Figure(
    name='frontier',
    title=f'{tables.metric_name(metric).capitalize()} against ε',
    caption=f'{comparison.IN_FIGURES} ε (logarithmic) is that of one run, '
    + '; '.join(about.label for about in groups)
    + '. Open markers at the right edge, beyond the break: ε is infinite.'
    + (
      ' Panels have different kinds of ε, which cannot be compared.'
      if len(groups) > 1
      else ''
    ),
    panels=len(groups),
    draw=functools.partial(_draw, groups, metric),
    height=4.2,
  )


def _draw(groups, metric, panels, shape) -> None:
  values = [
    v for arms in groups.values() for arm in arms for v in arm.by_seed(metric)
  ]
  several = len(groups) > 1
  for axes, (about, arms) in zip(panels, groups.items(), strict=True):
    _draw_panel(axes, arms, metric, shape)
    axes.set_ylabel(tables.metric_name(metric))
    delta = f' at δ = {about.delta:g}' if about.scope != 'none' else ''
    kind = ', extrapolated' if about.extrapolated else ''
    relation = about.relation.replace('_', ' ')
    axes.set_xlabel(f'ε{kind}{delta} ({relation or "no mechanism"})')
    _set_limits(axes, arms, metric, values)
    names = ', '.join(comparison.short(leaf) for leaf in _priced(arms))
    lines = [about.label] * several + [f'labels: {names}'] * bool(names)
    axes.set_title(
      '\n'.join(drawing.wrapped(line, shape, factor=3) for line in lines),
      fontsize=8,
      fontweight='normal',
      color=drawing.MUTED,
    )


def _priced(arms: Arms) -> list[str]:
  """Returns the changed leaves that name a point.

  Others name its line; the relation names the panel.
  """
  return [
    leaf
    for leaf in arms[0].changes
    if leaf.startswith('privacy.') and leaf != _RELATION
  ]


def _lines(arms: Arms) -> dict[str, list[comparison.Arm]]:
  """Returns settings beside privacy -> arms, by epsilon."""
  found: dict[str, list[comparison.Arm]] = {}
  for arm in sorted(arms, key=lambda a: a.epsilon):
    rest = {
      k: v for k, v in arm.changes.items() if not k.startswith('privacy.')
    }
    found.setdefault(comparison.words(rest), []).append(arm)
  return found


def _draw_panel(axes, arms, metric, shape) -> None:
  finite = [a.epsilon for a in arms if 0 < a.epsilon < math.inf]
  low, high = min(finite, default=0.5) / 1.35, max(finite, default=2.0) * 1.35
  infinite = [a for a in arms if math.isinf(a.epsilon)]
  end = high * (high / low) ** 0.16
  axes.set_xscale('log')
  axes.set_xlim(low, end * (high / low) ** 0.09 if infinite else high)
  lines = _lines(arms)
  for i, (label, members) in enumerate(lines.items()):
    _draw_line(axes, members, metric, shape, index=i, end=end, label=label)
  ticks = drawing.epsilon_ticks(low, high) if finite else []
  if shape is drawing.Shape.NARROW:
    ticks = ticks[:: 2 if len(ticks) > 5 else 1]
  labels = [f'{t:g}' for t in ticks]
  if infinite:
    ticks, labels = [*ticks, end], [*labels, '∞']
  axes.set_xticks(ticks, labels)
  axes.minorticks_off()
  if infinite and finite:
    _break(axes, (high * end) ** 0.5)
    axes.axhline(
      max(a.final(metric).mean for a in infinite),
      color=drawing.MUTED,
      linewidth=1,
      linestyle=':',
      zorder=1,
    )
  if len(lines) > 1:
    axes.legend(loc='lower right', fontsize=8)


def _draw_line(axes, arms, metric, shape, *, index, end, label) -> None:
  """Draws the arms that differ in privacy alone; infinity at the end."""
  look = drawing.look(index)
  private = [a for a in arms if 0 < a.epsilon < math.inf]
  axes.plot(
    [a.epsilon for a in private],
    [a.final(metric).mean for a in private],
    label=label,
    zorder=2,
    **look,
  )
  for arm in arms:
    if arm.epsilon == 0:
      continue  # Nothing was released; a logarithmic axis has no place for it.
    is_private = math.isfinite(arm.epsilon)
    x = arm.epsilon if is_private else end
    seeds = arm.by_seed(metric)
    found = arm.final(metric)
    drawing.single_runs(axes, [x] * len(seeds), seeds, index, right=-6)
    axes.errorbar(
      [x],
      [found.mean],
      yerr=[0.0 if math.isnan(found.half_width) else found.half_width],
      color=look['color'],
      marker=look['marker'],
      markersize=6.5,
      markerfacecolor=look['color'] if is_private else drawing.PAPER,
      markeredgewidth=1.5,
      capsize=3.5,
      elinewidth=1.5,
      zorder=3,
    )
    _label(axes, arm, found.mean, x, shape, above=index % 2 == 1)


def _label(axes, arm, y, x, shape, *, above) -> None:
  """Names a point by its privacy leaves alone; its line is in the legend."""
  known = {k: arm.changes[k] for k in _priced([arm])}
  named = [v for k, v in known.items() if v is not None and k != _MECHANISM]
  named = named or [known[k] for k in known if k == _MECHANISM]
  axes.annotate(
    drawing.wrapped(', '.join(map(comparison.value, named)), shape),
    (x, y),
    xytext=(7, 5 if above else -5),
    textcoords='offset points',
    fontsize=8 if shape is drawing.Shape.WIDE else 7.5,
    va='bottom' if above else 'top',
    color=drawing.INK,
  )


def _set_limits(axes, arms, metric, values) -> None:
  ends = list(values)
  for arm in arms:
    found = arm.final(metric)
    if not math.isnan(found.half_width):
      ends += [found.low, found.high]
  ends = [e for e in ends if math.isfinite(e)]
  low, high = min(ends), max(ends)
  pad = (high - low or 0.1) * 0.08
  if metric.endswith('accuracy'):
    axes.set_ylim(max(0.0, low - 2 * pad), min(1.0, high + pad))
  else:
    axes.set_ylim(low - 2 * pad, high + pad)


def _break(axes, x) -> None:
  """Marks where the axis stops being to scale."""
  axes.annotate(
    '//',
    (x, 0.0),
    xycoords=('data', 'axes fraction'),
    ha='center',
    va='center',
    fontsize=10,
    color=drawing.MUTED,
    annotation_clip=False,
  )
