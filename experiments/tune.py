r"""Searches for good settings of an experiment, with Optuna.

  python -m experiments.tune --experiment=quickstart --trials=20 --seeds=2 \
    --tune.privacy.clip_norm=0.1..3:log --tune.client.epochs=1..5 \
    --output_dir=runs/tuned

Every leaf has a --tune flag: LOW..HIGH, LOW..HIGH:log, or VALUE,VALUE. A trial
is one setting with all seeds, an arm as in a sweep; the same command again
continues, with more --trials as well. Needs the extra `tune`.

All trials train on the same data, and the best is chosen by looking at their
results: that costs privacy which no epsilon of a single run pays for. So the
number of trials is shown beside every epsilon.
"""

from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli  # First: it sets TensorFlow's environment.
from experiments import sweep
from tff_pipeline import config_flags
from tff_pipeline import validate

if TYPE_CHECKING:
  from tff_pipeline.sweeps import design
  from tff_pipeline.sweeps import tuning

_TRIALS = flags.DEFINE_integer('trials', 20, 'Settings to try.', 1)
_PREFIX = 'tune.'
_STATE = 'tune.json'
_SHARED = ('output_dir', 'data_dir', 'seeds', 'processes', 'threads', 'ray')
_OF_SWEEPS = ('zip', 'dry_run', 'emit', 'stop_at_accuracy')


def define_flags() -> None:
  """Defines --experiment, its leaves, and a search space for each leaf."""
  cli.define_experiment()
  for name in _SHARED:
    flags.declare_key_flag(name)
  for name in config_flags.leaves():
    flags.DEFINE_string(
      _PREFIX + name,
      None,
      'What is searched for this leaf.',
      module_name=config_flags.section(name),
    )


def main() -> int:
  """Tries settings until there are enough; returns the exit status."""
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import tuning

  cli.log_to_stderr()
  for name in _OF_SWEEPS:
    if value := flags.FLAGS[name].value:
      raise validate.error(
        name, expected='no value: it is for grids', found=value
      )
  base = cli.read_experiment()
  texts = {
    leaf: text
    for leaf in config_flags.leaves()
    if (text := flags.FLAGS[_PREFIX + leaf].value) is not None
  }
  if not texts:
    raise validate.UsageError('nothing to tune: expected --tune.LEAF=LOW..HIGH')
  space = {leaf: tuning.parse(leaf, text) for leaf, text in texts.items()}
  tuning.Study(space, maximize=True, seed=base.seed)  # Is Optuna there?
  folder = pathlib.Path(sweep.output_dir())
  points = _known_points(folder, texts)
  with execution.owned(folder):
    return _search(_Search(base, space, texts, folder), points)


class _Search:
  """What does not change during a search."""

  def __init__(
    self,
    base: Any,
    space: 'tuning.Space',
    texts: Mapping[str, str],
    folder: pathlib.Path,
  ):
    self.base = base
    self.space = space
    self.texts = texts
    self.folder = folder
    self.seeds = flags.FLAGS['seeds'].value or 1
    self.given = config_flags.given(flags.FLAGS)

  def plan(self, points: Sequence[Mapping[str, Any]]) -> 'list[design.Planned]':
    """Returns the runs of these points."""
    from tff_pipeline.sweeps import design
    from tff_pipeline.sweeps import tuning

    several = tuning.unique(points)
    axis = {leaf: [p[leaf] for p in several] for leaf in self.space}
    wanted = design.Sweep(axes=(axis,), seeds=self.seeds)
    return design.plan(wanted, self.base, given=self.given)


def _search(search: _Search, points: list[dict[str, Any]]) -> int:
  from tff_pipeline.sweeps import execution

  tried = 0
  while True:
    if len(points) > tried:
      ended = _try(search, points, tried)
      tried = len(points)
      if ended.number(execution.State.INTERRUPTED) or ended.number(
        execution.State.WAITING
      ):
        return sweep.end(ended, search.folder)
    if len(points) >= _TRIALS.value:
      return _end(search, points)
    number = max(1, sweep.side_by_side(_TRIALS.value) // search.seeds)
    number = min(number, _TRIALS.value - len(points))
    points += _ask(search, points, number)
    _write_state(search, points)


def _try(
  search: _Search, points: Sequence[Mapping[str, Any]], tried: int
) -> Any:
  """Runs the points that are new; what failed before is not tried again."""
  from tff_pipeline.sweeps import pricing

  runs = search.plan(points)
  old = search.plan(points[:tried]) if tried else []
  before = {run.directory for run in old}
  new = [run for run in runs if run.directory not in before]
  priced = pricing.prices(new)
  sweep.write_record(runs, search.folder, trials=len(points))
  jobs = [sweep.job(run, search.folder, search.given) for run in new]
  return sweep.run_jobs(sweep.with_rounds(jobs, priced), search.folder)


def _ask(
  search: _Search, points: Sequence[Mapping[str, Any]], number: int
) -> list[dict[str, Any]]:
  from tff_pipeline.report import reading
  from tff_pipeline.sweeps import tuning

  results, metric = _results(search, points)
  study = tuning.Study(
    search.space,
    maximize=metric is None or reading.is_higher_better(metric),
    seed=search.base.seed,
  )
  for point, result in zip(points, results, strict=True):
    study.tell(point, result)
  return study.ask(number)


def _results(
  search: _Search, points: Sequence[Mapping[str, Any]]
) -> tuple[list[float], str | None]:
  """Returns the mean over seeds at each point, NaN if it failed; the metric."""
  from tff_pipeline.report import reading

  found, metric = [], None
  for point in points:
    folders = [search.folder / run.directory for run in search.plan([point])]
    runs = [reading.read(f) for f in folders if (f / 'summary.json').exists()]
    if len(runs) < len(folders):
      found.append(math.nan)
      continue
    metric = reading.primary_metric(runs)
    found.append(sum(run.final(metric) for run in runs) / len(runs))
  return found, metric


def _end(search: _Search, points: Sequence[Mapping[str, Any]]) -> int:
  """Prints the best setting with its epsilon, and writes the report."""
  from tff_pipeline.report import comparison
  from tff_pipeline.report import reading
  from tff_pipeline.report import tables
  from tff_pipeline.report import writing

  results, metric = _results(search, points)
  known = [i for i, result in enumerate(results) if not math.isnan(result)]
  if not known:
    raise validate.UsageError(
      f'all {len(points)} trials failed; see {search.folder / "logs"}'
    )
  better = max if reading.is_higher_better(metric) else min
  best = better(known, key=results.__getitem__)
  runs = [
    reading.read(search.folder / run.directory)
    for run in search.plan([points[best]])
  ]
  (arm,) = comparison.arms(runs)
  epsilon = tables.epsilon(arm.epsilon, extrapolated=arm.promise.extrapolated)
  print(
    f'best of {len(points)} trials: {comparison.words(points[best])}: '
    f'{tables.metric_name(metric)} {results[best]:.4f} at epsilon '
    f'{epsilon.text} ({arm.promise.label}), which does not pay for the choice'
  )
  print(writing.write([search.folder], search.folder)[0])
  return 0 if len(known) == len(points) else 1


def _known_points(
  folder: pathlib.Path, texts: Mapping[str, str]
) -> list[dict[str, Any]]:
  """Returns the points of a search that is continued.

  Raises:
    UsageError: If the directory holds something else.
  """
  from tff_pipeline.outputs import run_directory

  path = folder / _STATE
  if not path.exists():
    names = sorted(p.name for p in folder.glob('*')) if folder.exists() else []
    if [name for name in names if name != 'lock']:
      raise validate.error(
        'output_dir',
        expected='a new or empty directory, or that of the same search',
        found=f'{folder} with {names[0]} in it',
      )
    return []
  state = run_directory.read_json(path)
  if state['space'] != dict(texts):
    raise validate.error(
      'output_dir',
      expected=f'the search that {folder} was started with: {state["space"]}',
      found=str(dict(texts)),
    )
  return state['points']


def _write_state(search: _Search, points: Sequence[Mapping[str, Any]]) -> None:
  from tff_pipeline.outputs import run_directory

  search.folder.mkdir(parents=True, exist_ok=True)
  run_directory.write_json(
    search.folder / _STATE,
    {'space': dict(search.texts), 'points': [dict(p) for p in points]},
  )


if __name__ == '__main__':
  define_flags()
  cli.run(main)
