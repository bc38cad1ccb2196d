"""The results of `experiments.benchmark` as a table, a picture and a page."""

from collections.abc import Callable
import datetime
import importlib.metadata
import os
import pathlib
from typing import Any

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot as plt
import pandas as pd

# The flags that ask for what stands in each file.
_FLAGS = {
  'mechanisms': (' --mechanisms=none,gaussian,gaussian_adaptive,local,dp_sgd'),
  'scaling': ' --scaling=cohort,client_size,threads',
  'memory': ' --memory_rounds=1000',
  'startup': ' --startup=3',
}
_PINNED = ('tensorflow', 'tensorflow-federated', 'numpy')
_CASE = ['model', 'cohort']
# Okabe and Ito's colours, told apart by their markers as well.
_STYLES = {
  'stock': {'color': '#D55E00', 'marker': 's'},
  'stock_onednn': {'color': '#CC79A7', 'marker': 'D'},
  'dense': {'color': '#E69F00', 'marker': '^'},
  'in_process': {'color': '#0072B2', 'marker': 'o'},
  'bare': {'color': '#000000', 'marker': 'x'},
}
_LABELS = {
  'stock': "TFF's builder and runtime",
  'stock_onednn': 'the same with oneDNN',
  'dense': "dense client work, TFF's runtime",
  'in_process': 'in_process',
  'bare': 'bare loop',
}


def per_client(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
  """Returns ms a client: median and quartiles, without the first round.

  Args:
    rows: A row for each round of each engine.
    by: Columns to group by; their order decides that of the result.
  """
  timed = rows[rows['round'] > 0]
  timed = timed.assign(ms=timed['seconds'] / timed['cohort'] * 1e3)
  quantiles = timed.groupby(by, sort=False)['ms'].quantile([0.25, 0.5, 0.75])
  return quantiles.unstack().set_axis(['low', 'median', 'high'], axis=1)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
  """Returns a row per case: ms a client by engine, and ratios of medians.

  Behind each median stands half the distance between the quartiles.
  """
  found = per_client(rows, [*_CASE, 'engine'])
  lines = []
  for case, group in rows.groupby(_CASE, sort=False):
    times = found.loc[case]
    line = {'case': f'{case[0]}/{case[1]}'}
    for engine, (low, median, high) in times.iterrows():
      line[engine] = f'{median:.2f} ± {(high - low) / 2:.2f}'
    medians = times['median']
    for name, (above, below) in {
      'stock/in_process': ('stock', 'in_process'),
      'stock_onednn/in_process': ('stock_onednn', 'in_process'),
      'in_process/bare': ('in_process', 'bare'),
    }.items():
      if above in medians and below in medians:
        line[name] = f'{medians[above] / medians[below]:.2f}'
    line |= _first_rounds_and_peaks(group)
    lines.append(line)
  return pd.DataFrame(lines)


def mechanisms(rows: pd.DataFrame) -> pd.DataFrame:
  """Returns a row per mechanism: ms a client, and over the first one's.

  The ratio is the median of those of the rounds, in which all took turns.
  """
  found = per_client(rows, ['mechanism'])
  seconds = rows[rows['round'] > 0].pivot(
    index='round', columns='mechanism', values='seconds'
  )
  first = rows['mechanism'].iloc[0]
  ratios = seconds.div(seconds[first], axis=0).median()
  return pd.DataFrame(
    {
      'mechanism': name,
      'ms a client': f'{median:.3f} ± {(high - low) / 2:.3f}',
      f'over {first}': f'{ratios[name]:.3f}',
    }
    for name, (low, median, high) in found.iterrows()
  )


def _first_rounds_and_peaks(rows: pd.DataFrame) -> dict[str, str]:
  """Returns what in_process and stock took apart from the timed rounds."""
  line = {}
  for engine in ('in_process', 'stock'):
    own = rows[rows['engine'] == engine]
    if len(own):
      first = own[own['round'] == 0]['seconds'].iloc[0]
      line[f'first s, {engine}'] = f'{first:.2f}'
      line[f'peak MB, {engine}'] = f'{own["peak_mb"].max():.0f}'
  return line


def write(folder: pathlib.Path) -> None:
  """Draws benchmark.png and writes benchmark.md from the folder's CSV files."""
  tables = {
    name: pd.read_csv(path)
    for name in ('cases', 'mechanisms', 'scaling', 'memory', 'startup')
    if (path := folder / f'benchmark_{name}.csv').exists()
  }
  figure = _draw(tables)
  figure.savefig(folder / 'benchmark.png', dpi=130)
  plt.close(figure)
  (folder / 'benchmark.md').write_text(_page(tables), encoding='utf-8')


def _page(tables: dict[str, pd.DataFrame]) -> str:
  asked = ''.join(flag for name, flag in _FLAGS.items() if name in tables)
  versions = ', '.join(f'{p} {importlib.metadata.version(p)}' for p in _PINNED)
  parts = [
    '# Benchmark',
    f'Written by `python -m experiments.benchmark --output_dir=docs{asked}` on '
    f'{datetime.date.today()}, {os.cpu_count()} CPU cores, {versions}. Do not '
    'edit.',
  ]
  if 'cases' in tables:
    parts += [
      'Milliseconds a client, one epoch: the median of the timed rounds ± half '
      'the distance between the quartiles. `python -m experiments.benchmark '
      '--help` says what the engines are. A peak is the resident memory of the '
      'whole process, in which all engines live, and of the worker, if any.',
      _markdown(summary(tables['cases'])),
    ]
  if 'mechanisms' in tables:
    table = tables['mechanisms']
    parts += [
      'The same for in_process under privacy, 2NN with cohorts of '
      f'{table["cohort"].iloc[0]}, {table["round"].max()} rounds, all '
      'mechanisms in turn; the ratio is the median of those of the rounds:',
      _markdown(mechanisms(table)),
    ]
  if 'startup' in tables:
    seconds = tables['startup'].median().to_frame().T.round(2)
    parts += [
      'Seconds of a fresh process, 2NN, cohort 10, in_process; medians of '
      f'{len(tables["startup"])}:',
      _markdown(seconds),
    ]
  if 'memory' in tables:
    parts.append(_memory_sentence(tables['memory']))
  parts.append('![Times and memory](benchmark.png)')
  return '\n\n'.join(parts) + '\n'


def _memory_sentence(memory: pd.DataFrame) -> str:
  start, growth = _growth(memory)
  return (
    f'Resident memory over {len(memory)} rounds of the 2NN with cohorts of 0 '
    f'to 39 clients: {start:.0f} MB after a tenth of the rounds, '
    f'{growth:+.2%} from there to the end.'
  )


def _growth(memory: pd.DataFrame) -> tuple[float, float]:
  """Returns MB after a tenth of the rounds, and the growth since then."""
  rss = memory['rss_mb']
  start = rss.iloc[len(rss) // 10]
  return start, rss.iloc[-1] / start - 1


def _markdown(table: pd.DataFrame) -> str:
  rows = [list(table.columns), ['---'] * len(table.columns)]
  rows += table.fillna('').astype(str).to_numpy().tolist()
  return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _draw(tables: dict[str, pd.DataFrame]) -> plt.Figure:
  """Returns a figure with a panel for each part that there is."""
  panels: list[tuple[Callable[..., None], Any]] = []
  if 'cases' in tables:
    panels.append((_draw_cases, tables['cases']))
  if 'scaling' in tables:
    for axis, rows in tables['scaling'].groupby('axis', sort=False):
      panels.append((_draw_scaling, (axis, rows)))
  if 'memory' in tables:
    panels.append((_draw_memory, tables['memory']))
  columns = min(len(panels), 3) or 1
  lines = -(-len(panels) // columns) or 1
  figure, axes = plt.subplots(
    lines,
    columns,
    figsize=(4.6 * columns, 3.6 * lines + 0.5),
    squeeze=False,
    layout='constrained',
  )
  for ax, (draw, data) in zip(axes.flat, panels, strict=False):
    ax.spines[['top', 'right']].set_visible(False)
    draw(ax, data)
  for ax in axes.flat[len(panels) :]:
    ax.set_visible(False)
  handles, labels = axes.flat[0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc='outside upper center',
    ncols=2 * columns,
    frameon=False,
  )
  return figure


def _draw_cases(ax: plt.Axes, rows: pd.DataFrame) -> None:
  found = per_client(rows, [*_CASE, 'engine']).reset_index()
  cases = list(dict.fromkeys(zip(found['model'], found['cohort'], strict=True)))
  for engine, style in _STYLES.items():
    own = found[found['engine'] == engine]
    places = [
      cases.index(c) for c in zip(own['model'], own['cohort'], strict=True)
    ]
    ax.plot(own['median'], places, linestyle='', label=_LABELS[engine], **style)
  ax.set_yticks(range(len(cases)), [f'{m}, cohort {c}' for m, c in cases])
  ax.set_ylim(len(cases) - 0.5, -0.5)
  ax.grid(axis='x', alpha=0.3)
  ax.set_xscale('log')
  ax.set_xlabel('ms a client')
  ax.set_title('Models')


_AXES = {
  'cohort': 'clients of a round',
  'client_size': 'examples of a client',
  'threads': 'clients at the same time',
}


def _draw_scaling(ax: plt.Axes, data: tuple[str, pd.DataFrame]) -> None:
  axis, rows = data
  found = per_client(rows, ['engine', 'value']).reset_index()
  for engine, style in _STYLES.items():
    own = found[found['engine'] == engine].sort_values('value')
    if len(own):
      ax.plot(own['value'], own['median'], **style)
      ax.fill_between(
        own['value'],
        own['low'],
        own['high'],
        color=style['color'],
        alpha=0.2,
        linewidth=0,
      )
  if axis == 'threads':
    ax.set_xticks(sorted(found['value'].unique()))
    ax.set_ylim(bottom=0)
  else:
    ax.set_xscale('log')
    ax.set_yscale('log')
  ax.grid(alpha=0.3)
  ax.set_xlabel(_AXES[axis])
  ax.set_ylabel('ms a client')
  ax.set_title(f'2NN, {axis.replace("_", " ")}')


def _draw_memory(ax: plt.Axes, memory: pd.DataFrame) -> None:
  ax.plot(memory['round'], memory['rss_mb'], color='#0072B2')
  ax.set_ylim(0, memory['rss_mb'].max() * 1.15)
  ax.grid(alpha=0.3)
  ax.set_xlabel('round')
  ax.set_ylabel('resident memory, MB')
  ax.set_title(f'in_process, {_growth(memory)[1]:+.2%}')
