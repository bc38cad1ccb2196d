"""What is on the page of a run."""

from collections.abc import Mapping
import math
from typing import Any

from tff_pipeline.privacy import statement as statements
from tff_pipeline.report import comparison
from tff_pipeline.report import page
from tff_pipeline.report import provenance
from tff_pipeline.report import reading
from tff_pipeline.report import run_figures
from tff_pipeline.report import tables


def build(run: reading.Run) -> page.Page:
  """Returns the page of one run, finished or not."""
  return page.Page(
    title=run.name,
    kicker=f'Run · {_config_text(run, "algorithm.name")} on '
    f'{_config_text(run, "task.name")} · {run.status}',
    lead=run.statement['sentence'],
    warnings=_run_warnings(run),
    cards=_cards(run),
    sections=[
      page.Section(
        id='figures', title='Figures', figures=list(run_figures.build(run))
      ),
      _privacy(run.statement),
      provenance.configuration([run]),
      _rows(run),
    ],
    footer=provenance.footer([run]),
  )


def _run_warnings(run: reading.Run) -> list[str]:
  warnings = []
  started = run.statement['rounds']
  if not run.is_finished:
    warnings.append(
      f'This run has not finished: {run.rounds} of '
      f'{run.leaves.get("rounds", "?")} rounds are in its table. The statement '
      f'is derived from its ledger, in which {started} rounds have started.'
    )
  warnings += provenance.warnings([run])
  if run.statement['extrapolated']:
    warnings.append(
      'ε is extrapolated to larger cohorts and is not the privacy of this run, '
      'also in the columns of metrics.csv.'
    )
  if run.statement['simulation']:
    warnings.append(run.statement['simulation'])
  return warnings


def _cards(run: reading.Run) -> list[page.Card]:
  statement = run.statement
  about = comparison.promise(statement)
  epsilon = tables.epsilon(run.epsilon, extrapolated=about.extrapolated).text
  price = f'at ε = {epsilon}'
  if about.scope != 'none':
    price += f', δ = {about.delta:g}'
  cards = []
  for metric in dict.fromkeys(
    [reading.primary_metric([run]), 'test_loss'] if run.rounds else []
  ):
    if metric in run.metrics:
      cards.append(
        page.Card(
          label=tables.metric_name(metric).capitalize(),
          value=tables.number(run.final(metric)).text,
          beside=price,
        )
      )
  mechanism = statement['mechanism'].replace('_', ' ')
  cards += [
    page.Card(
      label='ε',
      value=epsilon,
      beside=about.label if about.scope != 'none' else 'nothing is noised',
    ),
    page.Card(
      label='Rounds',
      value=str(run.rounds),
      beside=f'{mechanism}, {_config_text(run, "cohort.sampling")} cohorts',
    ),
  ]
  return cards


def _privacy(statement: Mapping[str, Any]) -> page.Section:
  """Returns the statement in full."""
  skipped = ('assumptions', 'not_covered', 'bounds', 'sentence', 'format')
  nested = statements.nested(statement)

  def entries(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
      (name.replace('_', ' '), _words(value))
      for name, value in part.items()
      if name not in skipped and name not in nested
    ]

  folds = [
    page.Fold(title='Assumptions', items=statement['assumptions'], open=True),
    page.Fold(title='Not covered', items=statement['not_covered'], open=True),
    *_bounds(statement, ''),
  ]
  for name, part in nested.items():
    title = name.replace('_', ' ')
    folds.append(
      page.Fold(title=f'Also: {title}', items=[part['sentence']], open=True)
    )
    folds.append(page.Fold(title=f'{title}, entries', facts=entries(part)))
    folds += _bounds(part, f'{title}: ')
  return page.Section(
    id='privacy',
    title='Privacy statement',
    facts=entries(statement),
    folds=folds,
  )


def _bounds(part: Mapping[str, Any], prefix: str) -> list[page.Fold]:
  items = []
  for bound in part['bounds']:
    prices = ', '.join(
      f'{tables.epsilon(float(e), extrapolated=False).text} by {name.upper()}'
      for name, e in bound['epsilon'].items()
    )
    items.append(
      f'{bound["name"]} (priced under {bound["priced_under"]}): ε = '
      f'{prices or "not priced"}. {bound["why"]}. Event: {bound["event"]}'
    )
  title = f'{prefix}every valid bound, with its event'
  return [page.Fold(title=title[0].upper() + title[1:], items=items)]


def _words(value: Any) -> str:
  """Returns an entry of a statement on one line."""
  if value is None:
    return '–'
  if value == 'inf' or value == math.inf:
    return tables.INFINITY
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, float):
    return repr(value)
  if isinstance(value, Mapping):
    return (
      '; '.join(f'{k.replace("_", " ")}: {_words(v)}' for k, v in value.items())
      or 'none'
    )
  if isinstance(value, list):
    return ' | '.join(map(_words, value)) or 'none'
  return str(value)


def _rows(run: reading.Run) -> page.Section:
  """Returns the evaluated rows, with epsilon beside the metrics."""
  names = [
    name
    for name in run.metrics
    if name in ('round', 'epsilon') or name.startswith(reading.TEST)
  ]
  about = comparison.promise(run.statement)

  def cell(name: str, value: float) -> tables.Cell:
    if name == 'round':
      return tables.Cell(int(value), str(int(value)))
    if name == 'epsilon':
      return tables.epsilon(value, extrapolated=about.extrapolated)
    return tables.number(value)

  rows = tuple(
    tuple(cell(name, row[name]) for name in names)
    for _, row in run.evaluated.iterrows()
  )
  table = tables.Table(
    name='rounds',
    title='Evaluated rounds',
    caption=f'ε at each round: {about.label}. The CSV has every round and '
    'column; those named unnoised_* are not covered by ε.',
    columns=tuple(
      {'round': 'round', 'epsilon': 'ε'}.get(n, tables.metric_name(n))
      for n in names
    ),
    rows=rows,
    raw={name: run.metrics[name].tolist() for name in run.metrics},
  )
  return page.Section(
    id='rounds',
    title='Rounds',
    folds=[page.Fold(title=f'{len(rows)} evaluated rounds', table=table)],
  )


def _config_text(run: reading.Run, leaf: str) -> str:
  return comparison.value(run.leaves.get(leaf)).replace('_', ' ')
