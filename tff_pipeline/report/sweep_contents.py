"""What is on the page of a sweep, and of some runs side by side."""

from collections.abc import Sequence
import math

from tff_pipeline import validate
from tff_pipeline.privacy import statement as statements
from tff_pipeline.report import comparison
from tff_pipeline.report import page
from tff_pipeline.report import provenance
from tff_pipeline.report import reading
from tff_pipeline.report import result_tables
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


def build(
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
    warnings=_warnings(collection, arms),
    sections=[
      *_comparison(arms, metric, target, trials),
      page.Section(
        id='statements',
        title='Privacy',
        paragraphs=[_SELECTION],
        folds=_sentences(arms),
      ),
      provenance.configuration(finished),
      page.Section(
        id='every',
        title='Every run',
        folds=[
          page.Fold(
            title=f'{len(collection.runs)} runs',
            table=result_tables.runs(collection.runs, metric=metric),
          )
        ],
      ),
    ],
    footer=provenance.footer(finished),
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
      data=[result_tables.results(arms, metric=metric, trials=trials)],
    )
  ]
  if len(arms) <= _MOST_COLUMNS and len(arms[0].changes) > 1:
    found.append(
      page.Section(
        id='configs',
        title='What was changed',
        data=[result_tables.configs(arms)],
      )
    )
  if pairs is not None:
    found.append(
      page.Section(
        id='differences',
        title='What differs',
        paragraphs=[_pairing(arms, other)],
        figures=[pairs],
        data=[result_tables.paired(arms, other, metric=metric)],
      )
    )
  found.append(
    page.Section(
      id='detail', title='By setting and by round', figures=[*figures.values()]
    )
  )
  if math.isfinite(target):
    table = result_tables.to_target(arms, metric=metric, target=target)
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


def _warnings(
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
  warnings += provenance.warnings(collection.runs)
  seeds = {len(arm.by_seed(reading.primary_metric(arm.runs))) for arm in arms}
  if seeds == {1}:
    warnings.append('One seed for each arm: there are no intervals.')
  return warnings


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
