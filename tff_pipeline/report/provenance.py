"""What runs come from: their config, versions, data and dates, for a page."""

from collections.abc import Sequence

from tff_pipeline.report import comparison
from tff_pipeline.report import page
from tff_pipeline.report import reading


def configuration(runs: Sequence[reading.Run]) -> page.Section:
  """Returns what all runs share of config and versions; one run's in full."""
  alone = len(runs) == 1
  names = comparison.differing(runs)
  common = {
    name: value
    for name, value in runs[0].leaves.items()
    if name not in names and (alone or name not in reading.SEEDS)
  }
  versions = dict.fromkeys(
    (name, value)
    for run in runs
    for name, value in run.record.get('versions', {}).items()
  )
  revisions = dict.fromkeys(
    str(run.record.get('git_revision') or 'unknown') for run in runs
  )
  facts = [(name, comparison.value(value)) for name, value in common.items()]
  folds = [
    page.Fold(
      title=f'{len(facts)} leaves of the config', facts=facts, open=alone
    ),
    page.Fold(
      title='Versions',
      facts=[*versions, *(('git revision', r) for r in revisions)],
      open=alone,
    ),
  ]
  if alone:
    command = ' '.join(runs[0].record.get('argv', []))
    folds.append(
      page.Fold(title='Command line', items=[command or 'not recorded'])
    )
  return page.Section(
    id='config',
    title='Configuration' if alone else 'What all runs share',
    folds=folds,
  )


def warnings(runs: Sequence[reading.Run]) -> list[str]:
  """Returns a warning where any was not trained on the real data set."""
  kinds = dict.fromkeys(run.data for run in runs if run.data != 'real')
  if not kinds:
    return []
  return [f'Not trained on the real data set, but on: {", ".join(kinds)}.']


def footer(runs: Sequence[reading.Run]) -> str:
  """Returns how the page was made, and when its runs started."""
  started = sorted(r.record['started'] for r in runs if 'started' in r.record)
  words = 'Made by python -m experiments.report from run directories alone.'
  if started:
    first, last = started[0][:10], started[-1][:10]
    when = first if first == last else f'{first} to {last}'
    words += f' Runs started {when}.'
  return words
