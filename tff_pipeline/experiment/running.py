"""run(config, output_dir), and what people read of it."""

from collections.abc import Mapping, Sequence
import logging
import os
import pathlib
from typing import Any

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.experiment import building
from tff_pipeline.experiment import limits
from tff_pipeline.experiment import noise
from tff_pipeline.experiment import origin
from tff_pipeline.experiment import same_data
from tff_pipeline.experiment import session
from tff_pipeline.experiment import stopping
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import statement as statements

_log = logging.getLogger(__name__)


def run(
  experiment: config.Experiment,
  output_dir: str | os.PathLike[str],
  *,
  data_dir: str | os.PathLike[str] | None = None,
  max_epsilon: float | None = None,
  stop_at_accuracy: float | None = None,
  argv: Sequence[str] = (),
) -> dict[str, Any]:
  """Runs an experiment, or continues it, to its end.

  Args:
    experiment: The config. The one that a directory was started with, or the
      run is refused.
    output_dir: The run directory.
    data_dir: Folder of the data sets' files; see `data.locations`.
    max_epsilon: Stop before the round whose release would exceed it.
    stop_at_accuracy: Stop after the first round whose held-out accuracy is at
      least this; refused where there is noise.
    argv: The command line, for the record.

  Returns:
    The content of `summary.json`.

  Raises:
    UsageError: If something that the user can mend is wrong; nothing was
      written.
    Interrupted: If a signal asked to stop; all that was computed is saved.
    Failed: If a file cannot be written or the engine broke down; what was saved
      until then is safe.
  """
  tasks.check(experiment.task)
  if max_epsilon is not None:
    validate.check_number('max_epsilon', max_epsilon, above=0.0)
  limits.check_stop_at_accuracy(stop_at_accuracy, experiment.privacy)
  with run_directory.RunDirectory(output_dir) as directory:
    directory.check_same(config.to_dict(experiment))
    finished = _finished_summary(directory)
    if finished is not None:
      _check_summary(finished, experiment, directory)
      _log.info('%s is finished already; nothing was changed.', output_dir)
      return finished
    solved, solution = limits.solve(experiment, directory.record)
    guaranteed = guarantees.build(config.terms(solved))
    if directory.record is None:
      limits.last_round(solved, guaranteed, max_epsilon=max_epsilon)
    key = noise.planned(solved, directory.path)
    tasks.prepare(solved.task, data_dir=data_dir)
    parts = building.build(solved, noise_key=key, data_dir=data_dir)
    data_tag = same_data.tag(solved, parts.task.train, key)
    same_data.check(directory.record, data_tag)
    with stopping.failures(directory.path):
      directory.claim(
        origin.record(
          experiment,
          solution,
          argv,
          uncovered=parts.task.uncovered,
          data_tag=data_tag,
        )
      )
      noise.keep(solved, key, directory.path)
      stretch = session.Session(
        solved, parts, key=key, solution=solution, folder=directory.path
      )
      return stretch.run(
        max_epsilon=max_epsilon, stop_at_accuracy=stop_at_accuracy
      )


def _finished_summary(
  directory: run_directory.RunDirectory,
) -> dict[str, Any] | None:
  path = directory.path / session.SUMMARY
  if directory.record is None or not path.exists():
    return None
  try:
    summary = run_directory.read_json(path)
  except (OSError, ValueError) as e:
    raise _damaged_summary(path, found=repr(e)) from e
  return summary if summary.get('status') == session.FINISHED else None


def _check_summary(
  summary: Mapping[str, Any],
  experiment: config.Experiment,
  directory: run_directory.RunDirectory,
) -> None:
  """Refuses a summary that claims what config and ledger do not give."""
  record = directory.record
  solved, solution = limits.solve(experiment, record)
  started = ledgers.Ledger.read(directory.path / session.LEDGER)
  derived = statements.build(
    config.terms(solved),
    released=started.release_counts(started.last_round),
    replays=started.replays(),
    solved=solution,
    uncovered=record.get('uncovered', ()),
  )
  path = directory.path / session.SUMMARY
  try:
    wrong = statements.differences(summary['privacy'], derived)
    if summary['rounds'] != derived['rounds']:
      wrong.append(f'rounds: derived is {derived["rounds"]}')
    describe(summary, directory.path)  # Does it have all that people read?
  except (KeyError, TypeError, ValueError, AttributeError) as e:
    raise _damaged_summary(path, found=repr(e)) from e
  if wrong:
    raise _damaged_summary(path, found=wrong[0])


def _head_caveat(privacy: Mapping[str, Any]) -> str:
  if privacy['algorithm'] in config.LOCAL_LAYERS:
    return ' (with the initial local layers, which nobody has trained)'
  return ''


def _personalized(summary: Mapping[str, Any]) -> dict[str, str]:
  found = summary.get('personalization')
  if found is None:
    return {}
  before, after = found['before'], found['after']
  return {
    'personalized': f'accuracy {after["mean"]:.4f} (10th to 90th percentile '
    f'{after["p10"]:.4f} to {after["p90"]:.4f}) on {found["clients"]} held-out '
    f'clients after {found["epochs"]} epochs on {found["adapted_layers"]} '
    f'layers; {before["mean"]:.4f} before; {100 * found["share_hurt"]:.0f} % '
    'hurt'
  }


def _damaged_summary(path: pathlib.Path, *, found: str) -> validate.UsageError:
  return validate.error(
    'output_dir',
    expected=f'a whole summary in {path} that follows from config and ledger',
    found=found,
    remedy='Delete the file, and run again: it is then written anew',
  )


def describe(
  summary: Mapping[str, Any], output_dir: str | os.PathLike[str]
) -> str:
  """Returns the summary for people."""
  privacy = summary['privacy']
  test = ', '.join(f'{k} {float(v):.4f}' for k, v in summary['test'].items())
  lines = {
    'held-out data': test + _head_caveat(privacy),
    **_personalized(summary),
    **({} if summary['data'] == 'real' else {'data': summary['data']}),
    'epsilon': f'{statements.shown(float(privacy["epsilon"]))} at delta '
    f'{privacy["delta"]} ({privacy["headline"]["accountant"].upper()}; by '
    f'RDP {statements.shown(float(privacy["epsilon_rdp"]))})',
    'protects': f'one {privacy["unit"]}: {privacy["neighbours"]}',
    'cohorts': privacy['sampler'],
    'rounds': f'{summary["rounds"]} ({summary["status"]})',
    'versions': ', '.join(f'{k} {v}' for k, v in summary['versions'].items()),
    'files': os.fspath(output_dir),
  }
  if privacy['unit'] is None:
    lines['epsilon'] = 'infinite'
    lines['protects'] = 'nobody'
  if privacy['extrapolated']:
    lines['epsilon'] += ', extrapolated to larger cohorts'
  also = [part['sentence'] for part in statements.nested(privacy).values()]
  width = max(map(len, lines)) + 2
  table = [f'{name + ":":<{width}}{text}' for name, text in lines.items()]
  return '\n'.join(['', *table, '', privacy['sentence'], *also])
