"""What is on the page of a run, of a sweep, and of some runs side by side."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from tff_pipeline import validate
from tff_pipeline.privacy import statement as statements
from tff_pipeline.report import comparison
from tff_pipeline.report import page
from tff_pipeline.report import reading
from tff_pipeline.report import run_figures
from tff_pipeline.report import sweep_figures
from tff_pipeline.report import tables

_MOST_COLUMNS = 8
_SELECTION = (
  'Every ε here is that of one run, as if no other had been looked at. Whoever '
  'publishes all of them releases them all: their ε and δ add up, if they '
  'trained on the same people. Whoever publishes the best of a number fixed '
  'beforehand may lose nearly as much. With a random number of runs the best '
  'one costs about two to three times the ε of one (Liu and Talwar, STOC 2019; '
  'Papernot and Steinke, ICLR 2022). Held-out data is not protected at all.'
)


def of_run(run: reading.Run) -> page.Page:
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
      _configuration([run]),
      _rows(run),
    ],
    footer=_footer([run]),
  )


def of_runs(
  collection: reading.Collection,
  *,
  title: str,
  target: float | None = None,
) -> page.Page:
  """Returns the page that compares runs; of a sweep, what is missing as well.

  Args:
    collection: From `reading.collect`.
    title: Of the page.
    target: Value of the primary metric to find the rounds and the epsilon of;
      unset means one that about half of the arms end beyond.

  Raises:
    UsageError: If nothing is there to compare.
  """
  finished = [run for run in collection.runs if run.is_finished]
  if not finished:
    raise validate.UsageError(
      f'{title}: expected finished runs to compare, found '
      f'{len(collection.runs)} unfinished'
    )
  metric = reading.primary_metric(finished)
  arms = comparison.arms(finished)
  target = (
    comparison.usual_target(arms, metric=metric) if target is None else target
  )
  trials = sum(sweep.get('trials', 0) for sweep in collection.sweeps) or None
  return page.Page(
    title=title,
    kicker=f'{"Sweep" if collection.sweeps else "Comparison"} · '
    f'{len(arms)} arms, {len(finished)} finished runs',
    lead=_lead(arms, metric, trials),
    warnings=_collection_warnings(collection, arms),
    sections=[
      *_comparison(arms, metric, target, trials),
      page.Section(
        id='statements',
        title='Privacy',
        paragraphs=[_SELECTION],
        folds=_sentences(arms),
      ),
      _configuration(finished),
      page.Section(
        id='every',
        title='Every run',
        folds=[
          page.Fold(
            title=f'{len(collection.runs)} runs',
            table=tables.runs(collection.runs, metric=metric),
          )
        ],
      ),
    ],
    footer=_footer(finished),
  )


def _comparison(
  arms: Sequence[comparison.Arm],
  metric: str,
  target: float,
  trials: int | None,
) -> list[page.Section]:
  figures = {f.name: f for f in sweep_figures.build(arms, metric=metric)}
  other = comparison.reference(arms)
  frontier = figures.pop('frontier')
  pairs = figures.pop('paired_differences', None)
  found = [
    page.Section(
      id='tradeoff',
      title='Accuracy and its price'
      if metric == 'test_accuracy'
      else 'The result and its price',
      figures=[frontier],
      data=[tables.results(arms, metric=metric, trials=trials)],
    )
  ]
  if len(arms) <= _MOST_COLUMNS and len(arms[0].changes) > 1:
    found.append(
      page.Section(
        id='configs', title='What was changed', data=[tables.configs(arms)]
      )
    )
  if pairs is not None:
    found.append(
      page.Section(
        id='differences',
        title='What differs',
        paragraphs=[_pairing(arms, other)],
        figures=[pairs],
        data=[tables.paired(arms, other, metric=metric)],
      )
    )
  found.append(
    page.Section(
      id='detail', title='By setting and by round', figures=[*figures.values()]
    )
  )
  if math.isfinite(target):
    table = tables.to_target(arms, metric=metric, target=target)
    found.append(
      page.Section(id='target', title='Reaching a target', data=[table])
    )
  return found


def _pairing(arms: Sequence[comparison.Arm], other: comparison.Arm) -> str:
  common = [
    set(comparison.shared(arm, other)) for arm in arms if arm is not other
  ]
  always = set.intersection(*common)
  ordered = [w for w in comparison.shared(other, other) if w in always]
  fixed = any('privacy.noise_seed' in r.leaves for a in arms for r in a.runs)
  noise = (
    'A noise seed was given: noise is not independent between runs that share '
    'it.'
    if fixed
    else 'Noise is drawn independently in every run.'
  )
  shares = ', '.join(ordered) or 'nothing else'
  return (
    f'Runs of two arms with the same seed are a pair, and share: {shares}. So '
    f'what a seed makes easy or hard cancels in the differences. {noise}'
  )


def _lead(
  arms: Sequence[comparison.Arm], metric: str, trials: int | None
) -> str:
  """Says the range of the results, each with its epsilon."""
  ordered = sorted(arms, key=lambda arm: arm.epsilon)
  words = []
  for arm in dict.fromkeys([ordered[0], ordered[-1]]):
    cell = tables.epsilon(
      arm.epsilon, extrapolated=arm.promise.extrapolated
    ).text
    result = tables.with_interval(arm.final(metric)).text
    words.append(
      f'{tables.metric_name(metric)} {result} at ε = {cell} ({arm.label})'
    )
  text = '; '.join(words)
  text = text[:1].upper() + text[1:] + '.'
  if trials:
    text += f' The settings were chosen among {trials} trials.'
  return text


def _collection_warnings(
  collection: reading.Collection, arms: Sequence[comparison.Arm]
) -> list[str]:
  warnings = []
  unfinished = [run.name for run in collection.runs if not run.is_finished]
  if unfinished:
    warnings.append(
      f'{len(unfinished)} unfinished runs are left out: '
      + ', '.join(unfinished)
    )
  if collection.missing:
    warnings.append(
      f'{len(collection.missing)} planned runs do not exist yet: '
      + ', '.join(collection.missing)
    )
  kinds = {arm.promise for arm in arms if arm.promise.scope != 'none'}
  if len(kinds) > 1:
    warnings.append(
      'The ε here are about different things and cannot be compared as '
      'numbers: ' + '; '.join(kind.label for kind in sorted(kinds)) + '.'
    )
  if any(kind.extrapolated for kind in kinds):
    warnings.append(
      'An extrapolated ε is that of a larger cohort which was not run.'
    )
  numbers = {len(arm.by_seed(_any_metric(arm))) for arm in arms}
  if numbers == {1}:
    warnings.append('One seed for each arm: there are no intervals.')
  return warnings


def _any_metric(arm: comparison.Arm) -> str:
  return reading.primary_metric(arm.runs)


def _sentences(arms: Sequence[comparison.Arm]) -> list[page.Fold]:
  items = []
  for arm in arms:
    statement = max(arm.runs, key=lambda run: run.epsilon).statement
    items.append(f'{arm.label}: {statement["sentence"]}')
    items += [
      f'{arm.label}, also: {part["sentence"]}'
      for part in statements.nested(statement).values()
    ]
  return [page.Fold(title='The statement of each arm', items=items)]


def _run_warnings(run: reading.Run) -> list[str]:
  warnings = []
  started = run.statement['rounds']
  if not run.is_finished:
    warnings.append(
      f'This run has not finished: {run.rounds} of '
      f'{run.leaves.get("rounds", "?")} rounds are in its table. The statement '
      f'is derived from its ledger, in which {started} rounds have started.'
    )
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


def _configuration(runs: Sequence[reading.Run]) -> page.Section:
  names = comparison.differing(runs)
  common = {
    name: value
    for name, value in runs[0].leaves.items()
    if name not in names and (len(runs) == 1 or name not in reading.SEEDS)
  }
  versions = dict.fromkeys(
    (name, value)
    for run in runs
    for name, value in run.record.get('versions', {}).items()
  )
  revisions = dict.fromkeys(
    str(run.record.get('git_revision') or 'unknown') for run in runs
  )
  several = len(runs) > 1
  facts = [(name, comparison.value(value)) for name, value in common.items()]
  return page.Section(
    id='config',
    title='What all runs share' if several else 'Configuration',
    folds=[
      page.Fold(
        title=f'{len(facts)} leaves of the config',
        facts=facts,
        open=not several,
      ),
      page.Fold(
        title='Versions',
        facts=[*versions, *(('git revision', r) for r in revisions)],
        open=not several,
      ),
      *(
        []
        if several
        else [
          page.Fold(
            title='Command line',
            items=[' '.join(runs[0].record.get('argv', [])) or 'not recorded'],
          )
        ]
      ),
    ],
  )


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


def _footer(runs: Sequence[reading.Run]) -> str:
  started = sorted(r.record['started'] for r in runs if 'started' in r.record)
  words = 'Made by python -m experiments.report from run directories alone.'
  if started:
    first, last = started[0][:10], started[-1][:10]
    when = first if first == last else f'{first} to {last}'
    words += f' Runs started {when}.'
  return words
