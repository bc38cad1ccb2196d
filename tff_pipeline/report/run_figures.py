"""Figures of one run."""

from collections.abc import Iterator
import functools
import math

from tff_pipeline.report import comparison
from tff_pipeline.report import drawing
from tff_pipeline.report import reading
from tff_pipeline.report import tables

_CLIPPED = 'unnoised_clipped_share'
_PHASES = {
  'round_seconds': 'training',
  'evaluate_seconds': 'evaluation',
  'price_seconds': 'accounting',
}
_WHOLE = 'whole_seconds'
_CLIENTS = 'unnoised_client_'
_TENTH = '_accuracy_p10'


def build(run: reading.Run) -> Iterator[drawing.Figure]:
  """Yields the figures that the run has recorded enough for."""
  metrics = _tested(run)
  if run.rounds and metrics:
    yield _learning(run, metrics)
  if 'clip_norm' in run.metrics or _CLIPPED in run.metrics:
    yield _clipping(run)
  if {'released_update_norm', 'noise_norm'} <= set(run.metrics):
    yield _signal(run)
  if spread := [c for c in run.metrics if _is_client_accuracy(c)]:
    yield _clients(run, spread[0].removesuffix('p10'))
  if run.communication and metrics:
    yield _traffic(run, metrics[0])
  if run.rounds and set(_PHASES) <= set(run.metrics):
    yield _time(run)


def _is_client_accuracy(column: str) -> bool:
  return column.startswith(_CLIENTS) and column.endswith(_TENTH)


def _tested(run: reading.Run) -> list[str]:
  """Returns up to two held-out metrics: the primary one, and the loss."""
  names = [name for name in run.metrics if name.startswith(reading.TEST)]
  if not names:
    return []
  primary = reading.primary_metric([run])
  return [primary, *(n for n in ['test_loss'] if n in names and n != primary)]


def _learning(run: reading.Run, metrics: list[str]) -> drawing.Figure:
  about = comparison.promise(run.statement)
  which = 'RDP at every round' if 'epsilon_rdp' in run.metrics else ''
  caption = (
    f'ε, dashed on the right axis, is {about.label}'
    if math.isfinite(run.epsilon)
    else 'ε is infinite in every round: this run has no differential privacy'
  )
  caption += '; the headline at evaluated rounds'
  if which and math.isfinite(run.epsilon):
    caption += f', by {which} as a thin line'
  caption += '. Dotted: training metrics, un-noised and not covered by ε.'
  return drawing.Figure(
    name='learning',
    title='Learning, and what it costs',
    caption=caption,
    panels=len(metrics),
    draw=functools.partial(_draw_learning, run, metrics),
    height=3.7,
  )


def _draw_learning(run, metrics, panels, shape) -> None:
  del shape
  for axes, metric in zip(panels, metrics, strict=True):
    rows = run.evaluated
    few = len(rows) <= 30
    axes.plot(
      rows['round'],
      rows[metric],
      color=drawing.color(0),
      marker='o' if few else None,
      markersize=3,
      label=tables.metric_name(metric),
    )
    train = metric.replace(reading.TEST, 'unnoised_train_')
    if train in run.metrics:
      axes.plot(
        run.metrics['round'],
        run.metrics[train],
        color=drawing.MUTED,
        linestyle=':',
        linewidth=1.3,
        label='training, un-noised',
      )
    axes.set_ylabel(tables.metric_name(metric))
    drawing.whole_rounds(axes)
    if metric == 'test_accuracy':
      axes.set_ylim(0, 1.02)
    handles = _draw_epsilon(axes, run)
    lines = [*axes.get_lines(), *handles]
    axes.legend(
      handles=lines,
      loc='lower left',
      bbox_to_anchor=(-0.02, 1.0),
      ncols=2,
      columnspacing=1.2,
      handlelength=2.2,
    )


def _draw_epsilon(axes: drawing.Axes, run: reading.Run) -> list[object]:
  """Adds epsilon on a second axis; infinity is written, not drawn."""
  rows = run.evaluated
  if 'epsilon' not in rows or not rows['epsilon'].map(math.isfinite).any():
    axes.text(
      0.98,
      0.04,
      'ε = ∞ in every round',
      transform=axes.transAxes,
      ha='right',
      fontsize=9,
      color=drawing.INK,
    )
    return []
  extrapolated = run.statement['extrapolated']
  right = axes.twinx()
  right.spines['right'].set_visible(True)
  right.grid(False)
  label = 'ε, extrapolated' if extrapolated else 'ε'
  (line,) = right.plot(
    rows['round'],
    rows['epsilon'],
    color=drawing.color(1),
    linestyle='--',
    label=label,
  )
  handles = [line]
  if 'epsilon_rdp' in run.metrics:
    (thin,) = right.plot(
      run.metrics['round'],
      run.metrics['epsilon_rdp'],
      color=drawing.color(1),
      linewidth=0.8,
      label='ε by RDP alone',
    )
    handles.append(thin)
  right.set_ylim(bottom=0)
  right.set_ylabel(f'{label} at δ = {run.statement["delta"]:g}')
  return handles


def _clipping(run: reading.Run) -> drawing.Figure:
  shown = [name for name in ('clip_norm', _CLIPPED) if name in run.metrics]
  return drawing.Figure(
    name='clipping',
    title='Clipping',
    caption='Clip norm in force, and the share of updates of a cohort that it '
    'shortened. The share is un-noised: not covered by ε.',
    panels=len(shown),
    draw=functools.partial(_draw_clipping, run, shown),
    height=2.8,
  )


def _draw_clipping(run, shown, panels, shape) -> None:
  del shape
  labels = {
    'clip_norm': 'clip norm\n(L2, units of the weights)',
    _CLIPPED: 'clipped share of updates\n(un-noised, not covered)',
  }
  for axes, name in zip(panels, shown, strict=True):
    axes.plot(run.metrics['round'], run.metrics[name], color=drawing.color(2))
    axes.set_ylabel(labels[name])
    axes.set_ylim(0, 1.02 if name == _CLIPPED else None)
    drawing.whole_rounds(axes)


def _signal(run: reading.Run) -> drawing.Figure:
  return drawing.Figure(
    name='signal_to_noise',
    title='Signal and noise of the aggregate',
    caption='L2 norm of the released mean update, and the norm that its noise '
    'alone is expected to have. Both follow from what is released with noise, '
    'so ε covers them. Where the lines meet, the step is nearly all noise; the '
    'ratio is an estimate, and 0 where the norm is below that of the noise.',
    panels=2,
    draw=functools.partial(_draw_signal, run),
    height=2.9,
  )


def _draw_signal(run, panels, shape) -> None:
  del shape
  rounds = run.metrics['round']
  released = run.metrics['released_update_norm']
  noise = run.metrics['noise_norm']
  norms, ratio = panels
  norms.plot(rounds, released, color=drawing.color(0), label='released update')
  norms.plot(
    rounds,
    noise,
    color=drawing.color(1),
    linestyle='--',
    label='noise alone (expected)',
  )
  norms.set_ylabel('L2 norm')
  norms.set_ylim(bottom=0)
  norms.legend(loc='best')
  signal = (released**2 - noise**2).clip(lower=0) ** 0.5
  ratio.plot(rounds, signal / noise, color=drawing.color(2))
  ratio.set_ylabel('signal to noise\n(estimated, of L2 norms)')
  ratio.set_ylim(bottom=0)
  if not (noise > 0).all():
    ratio.text(0.5, 0.5, 'no noise', transform=ratio.transAxes, ha='center')
  for axes in panels:
    drawing.whole_rounds(axes)


def _clients(run: reading.Run, prefix: str) -> drawing.Figure:
  where = 'held-out' if '_test_' in prefix else 'training'
  return drawing.Figure(
    name='clients',
    title='Accuracy of the clients',
    caption=f'Of the global model on the {where} examples of each client: the '
    'mean over clients, a band from the 10th to the 90th percentile, and the '
    'mean of the tenth of them that fares worst. Un-noised: not covered by ε.',
    panels=1,
    draw=functools.partial(_draw_clients, run, prefix),
    height=3.2,
  )


def _draw_clients(run, prefix, panels, shape) -> None:
  del shape
  (axes,) = panels
  rows = run.metrics.dropna(subset=[prefix + 'mean'])
  rounds = rows['round']
  axes.fill_between(
    rounds,
    rows[prefix + 'p10'],
    rows[prefix + 'p90'],
    color=drawing.color(0),
    alpha=0.2,
    linewidth=0,
    label='10th to 90th percentile',
  )
  axes.plot(rounds, rows[prefix + 'mean'], color=drawing.color(0), label='mean')
  axes.plot(
    rounds,
    rows[prefix + 'worst_decile'],
    color=drawing.color(1),
    linestyle='--',
    label='worst tenth',
  )
  axes.set_ylabel('accuracy of a client')
  axes.set_ylim(0, 1.02)
  axes.legend(loc='lower left', bbox_to_anchor=(-0.02, 1.0), ncols=3)
  drawing.whole_rounds(axes)


def _traffic(run: reading.Run, metric: str) -> drawing.Figure:
  sent = run.communication
  return drawing.Figure(
    name='communication',
    title='Communication',
    caption=f'Each client of a cohort gets {sent["bytes_down"]:,.0f} bytes and '
    f'sends {sent["bytes_up"]:,.0f} in a round; megabytes are those of all '
    'rounds so far, by the expected cohort.',
    panels=1,
    draw=functools.partial(_draw_traffic, run, metric),
    height=2.8,
  )


def _draw_traffic(run, metric, panels, shape) -> None:
  del shape
  (axes,) = panels
  rows = run.evaluated
  megabytes = run.communication['expected_megabytes'] / run.rounds
  axes.plot(rows['round'] * megabytes, rows[metric], color=drawing.color(2))
  axes.set_xlabel('megabytes, up and down')
  axes.set_ylabel(tables.metric_name(metric))
  axes.set_xlim(left=0)
  if metric == 'test_accuracy':
    axes.set_ylim(0, 1.02)


def _time(run: reading.Run) -> drawing.Figure:
  total = sum(seconds.sum() for seconds in _phases(run).values())
  first = run.metrics['round_seconds'].iloc[0]
  caption = (
    f'{total:.1f} s in these phases over {run.rounds} rounds; the first round, '
    f'which compiles, trained for {first:.1f} s. Start-up is not in it.'
  )
  if _WHOLE in run.metrics:
    caption += (
      ' Other: sampling, the ledger, tables, and checkpoints of the round '
      'before.'
    )
  return drawing.Figure(
    name='time',
    title='Time',
    caption=caption,
    panels=2,
    draw=functools.partial(_draw_time, run),
    height=2.6,
  )


def _phases(run: reading.Run) -> dict[str, object]:
  found = {name: run.metrics[c] for c, name in _PHASES.items()}
  if _WHOLE in run.metrics:
    found['other'] = (run.metrics[_WHOLE] - sum(found.values())).clip(lower=0)
  return found


def _draw_time(run, panels, shape) -> None:
  del shape
  whole, by_round = panels
  phases = _phases(run)
  totals = {name: float(seconds.sum()) for name, seconds in phases.items()}
  names = list(totals)
  whole.barh(names, list(totals.values()), color=drawing.color(5), height=0.6)
  most = max(totals.values())
  for i, seconds in enumerate(totals.values()):
    whole.text(seconds + most * 0.02, i, f'{seconds:.2f} s', va='center')
  whole.set_xlim(0, most * 1.22)
  whole.invert_yaxis()
  whole.grid(axis='y', visible=False)
  whole.set_xlabel('seconds in all')
  by_round.plot(
    run.metrics['round'], run.metrics['round_seconds'], color=drawing.color(0)
  )
  by_round.set_yscale('log')
  by_round.set_ylabel('seconds of training')
  by_round.yaxis.set_major_formatter('{x:g}')
  by_round.yaxis.set_minor_formatter('')
  drawing.whole_rounds(by_round)
