r"""Runs an experiment with many settings, and compares them fairly.

  python -m experiments.sweep --experiment=quickstart \
    --sweep.privacy.noise_multiplier=0,0.3,0.5,0.8,1.2 --seeds=5 \
    --output_dir=runs/noise

Every leaf has a --sweep flag; several make a grid, and those that --zip names
vary together. All arms share partition, initial weights, cohorts and shuffles
seed by seed, so they are compared within pairs. Runs are processes of their
own, as many at a time as cores and memory allow. The same command again
continues; with more values or seeds, it adds to the sweep. A run that fails is
reported and does not stop the others; the exit status is 1 then.

--dry_run prints what every arm will cost: epsilon from its config, time from
the first rounds of one run. --emit prints the runs as lines for other machines
instead of running them; `python -m experiments.report` collects the results.
"""

from collections.abc import Sequence
import csv
import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli  # First: it sets TensorFlow's environment.
from tff_pipeline import config_flags
from tff_pipeline import validate

if TYPE_CHECKING:
  from tff_pipeline.sweeps import design
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import pricing

_PROBE_ROUNDS = 4
_PREFIX = 'sweep.'

_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Directory of the sweep; one folder in it for each arm.'
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'Folder of the data sets, as in experiments.train.'
)
_STOP_AT_ACCURACY = flags.DEFINE_float(
  'stop_at_accuracy',
  None,
  'End each run at this held-out accuracy, as in experiments.train: for arms '
  'that are compared by their rounds to it, not by where they end.',
)
_SEEDS = flags.DEFINE_integer(
  'seeds', None, "Number of seeds, from the experiment's own on."
)
_ZIP = flags.DEFINE_multi_string(
  'zip', [], 'Leaves, comma-separated, whose --sweep lists are read in step.'
)
_PROCESSES = flags.DEFINE_integer(
  'processes',
  None,
  'Runs at a time; unset means as cores and memory allow.',
  1,
)
_RAY = flags.DEFINE_string(
  'ray',
  None,
  'Run on a Ray cluster: its address, or `local`. Needs the extra `ray`, and '
  'machines that share --output_dir and this checkout.',
)
_THREADS = flags.DEFINE_integer(
  'threads',
  None,
  'Cores of each run; unset divides those of this machine.',
  1,
)
_DRY_RUN = flags.DEFINE_boolean(
  'dry_run', False, 'Print what every arm will cost, and train nothing.'
)
_PROBE = flags.DEFINE_boolean(
  'probe', True, 'Whether a dry run measures the time of some rounds.'
)
_EMIT = flags.DEFINE_enum(
  'emit', None, ['shell', 'slurm'], 'Print the runs for other machines.'
)


def define_flags() -> None:
  """Defines --experiment, its leaves, and a list for each leaf."""
  cli.define_experiment()
  for name in config_flags.leaves():
    flags.DEFINE_list(
      _PREFIX + name,
      None,
      'Values of this leaf, comma-separated.',
      module_name=config_flags.section(name),
    )


def main() -> int:
  """Plans, prices, prints or runs the sweep; returns the exit status."""
  from tff_pipeline.experiment import limits
  from tff_pipeline.sweeps import design

  cli.log_to_stderr()
  base = cli.read_experiment()
  sweep = _read_sweep()
  given = config_flags.given(flags.FLAGS)
  runs = design.plan(sweep, base, given=given)
  for run in runs:
    limits.check_stop_at_accuracy(
      _STOP_AT_ACCURACY.value, run.experiment.privacy
    )
  if _DRY_RUN.value:
    return _dry_run(runs)
  folder = pathlib.Path(output_dir())
  design.check_same(folder, runs)
  jobs = [job(run, folder, given) for run in runs]
  if _EMIT.value:
    return _emit(runs, jobs, folder)
  return _execute(runs, jobs, folder)


def output_dir() -> str:
  """Returns where the sweep goes; `UsageError` if nothing says so."""
  if not _OUTPUT_DIR.value:
    raise validate.error('output_dir', expected='a directory', found='nothing')
  return _OUTPUT_DIR.value


def _read_sweep() -> 'design.Sweep':
  """Returns the sweep of the flags, or else of the experiment file."""
  from tff_pipeline.sweeps import design

  name = flags.FLAGS['experiment'].value
  in_file = None if name is None else cli.load_sweep(name)
  lists = {
    leaf: [_parse(leaf, text) for text in values]
    for leaf in config_flags.leaves()
    if (values := flags.FLAGS[_PREFIX + leaf].value) is not None
  }
  if not lists and in_file is None and _SEEDS.value is None:
    raise validate.UsageError(
      'nothing to sweep: expected --sweep.LEAF=VALUE,VALUE, --seeds=N, or an '
      'experiment file with a SWEEP'
    )
  if not lists and in_file is not None:
    seeds = in_file.seeds if _SEEDS.value is None else _SEEDS.value
    return design.Sweep(axes=in_file.axes, seeds=seeds)
  return design.Sweep(
    axes=tuple(_axes(lists)),
    seeds=1 if _SEEDS.value is None else _SEEDS.value,
  )


def _axes(lists: dict[str, list[Any]]) -> list[dict[str, list[Any]]]:
  """Returns one axis for each leaf, and one for each --zip."""
  groups = [text.split(',') for text in _ZIP.value]
  for leaf in [leaf for group in groups for leaf in group]:
    if leaf not in lists:
      raise validate.error(
        'zip', expected='leaves that have a --sweep list', found=leaf
      )
  axes, done = [], set()
  for leaf in lists:
    if leaf in done:
      continue
    group = next((g for g in groups if leaf in g), [leaf])
    axes.append({name: lists[name] for name in group})
    done |= set(group)
  return axes


def _parse(leaf: str, text: str) -> Any:
  field = config_flags.leaves()[leaf]
  try:
    return config_flags.parse_leaf(field, text.strip())
  except ValueError as e:
    raise validate.error(
      _PREFIX + leaf, expected=str(e).removeprefix('expected '), found=text
    ) from e


def job(
  run: 'design.Planned', folder: pathlib.Path, given: dict[str, Any]
) -> 'execution.Job':
  """Returns how `experiments.train` runs it, with the flags of this sweep."""
  from tff_pipeline.sweeps import execution

  where = folder / run.directory
  accuracy = _STOP_AT_ACCURACY.value
  return execution.Job(
    name=run.directory,
    command=(
      *_train(run, given),
      *([] if accuracy is None else [f'--stop_at_accuracy={accuracy}']),
      f'--output_dir={where}',
    ),
    folder=where,
    rounds=run.experiment.rounds or 0,
  )


def _train(run: 'design.Planned', given: dict[str, Any]) -> tuple[str, ...]:
  """Returns the command without its output directory."""
  python = 'python' if _EMIT.value else sys.executable
  name = flags.FLAGS['experiment'].value
  swept = set(run.changes)
  return (
    python,
    '-m',
    'experiments.train',
    *([] if name is None else [f'--experiment={name}']),
    *(f'--{leaf}={v}' for leaf, v in given.items() if leaf not in swept),
    *run.arguments(),
    *([] if _DATA_DIR.value is None else [f'--data_dir={_DATA_DIR.value}']),
  )


def _emit(
  runs: 'Sequence[design.Planned]',
  jobs: 'Sequence[execution.Job]',
  folder: pathlib.Path,
) -> int:
  """Prints the runs, and records the plan for the report."""
  from tff_pipeline.sweeps import scripts

  write_record(runs, folder)
  if _EMIT.value == 'slurm':
    print(scripts.slurm(jobs, threads=_THREADS.value or 2), end='')
  else:
    print(scripts.shell(jobs), end='')
  return 0


def write_record(
  runs: 'Sequence[design.Planned]',
  folder: pathlib.Path,
  *,
  trials: int | None = None,
) -> None:
  """Writes the plan, for the report."""
  from tff_pipeline.outputs import run_directory
  from tff_pipeline.sweeps import design

  folder.mkdir(parents=True, exist_ok=True)
  record = design.record(runs, command=sys.argv[1:])
  if trials is not None:
    record['trials'] = trials
  run_directory.write_json(folder / design.RECORD, record)


def _execute(
  runs: 'Sequence[design.Planned]',
  jobs: 'Sequence[execution.Job]',
  folder: pathlib.Path,
) -> int:
  """Runs all that has not finished, then writes the report."""
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import pricing
  from tff_pipeline.sweeps import view

  priced = pricing.prices(runs)  # Whatever cannot be priced is refused first.
  print(view.price_table(runs, priced, probes=None))
  with execution.owned(folder):
    write_record(runs, folder)
    return end(run_jobs(with_rounds(jobs, priced), folder), folder)


def with_rounds(
  jobs: 'Sequence[execution.Job]', priced: 'Sequence[pricing.Price]'
) -> 'list[execution.Job]':
  """Returns jobs with the rounds that a target epsilon was solved for."""
  return [
    dataclasses.replace(job, rounds=price.rounds)
    for job, price in zip(jobs, priced, strict=True)
  ]


def run_jobs(
  jobs: 'Sequence[execution.Job]', folder: pathlib.Path
) -> 'execution.Progress':
  """Runs all jobs that have not finished, and shows how they stand."""
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import view

  processes = side_by_side(sum(not job.is_finished for job in jobs))
  threads = _threads(processes)
  launch = _launcher(threads, folder / 'logs')
  print(
    f'{len(jobs)} runs, '
    + ('queued by Ray' if _RAY.value else f'{processes} at a time')
    + f', {threads} threads each; what they print is in {folder / "logs"}',
    flush=True,
  )
  with view.Bar() as bar:
    return execution.run(
      jobs, processes=processes, launch=launch, view=bar.update
    )


def side_by_side(pending: int) -> int:
  """Returns how many runs there are at a time."""
  import psutil

  from tff_pipeline.sweeps import execution

  if _PROCESSES.value is not None:
    return _PROCESSES.value
  if _RAY.value is not None:
    return max(1, pending)  # Ray queues them.
  return execution.side_by_side(
    max(1, pending),
    cores=os.cpu_count() or 1,
    free_bytes=psutil.virtual_memory().available,
  )


def _threads(processes: int) -> int:
  if _THREADS.value is not None:
    return _THREADS.value
  return max(1, (os.cpu_count() or 1) // processes)


@functools.cache
def _launcher(threads: int, logs: pathlib.Path) -> 'execution.Launcher':
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import ray_cluster

  here = pathlib.Path.cwd()
  if _RAY.value is not None:
    return ray_cluster.Ray(_RAY.value, threads=threads, logs=logs, cwd=here)
  return execution.Local(threads, logs, here)


def end(ended: 'execution.Progress', folder: pathlib.Path) -> int:
  """Says what failed, writes the report, and returns the exit status."""
  from tff_pipeline.report import writing
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import view

  for line in view.failures(ended, folder / 'logs'):
    print(line, file=sys.stderr)
  if ended.number(execution.State.FINISHED):
    for path in writing.write([folder], folder)[:1]:
      print(path)
  if ended.number(execution.State.FAILED):
    return 1
  if ended.number(execution.State.FINISHED) < len(ended.jobs):
    print('stopped; the same command again continues.', file=sys.stderr)
    return cli.INTERRUPTED_STATUS
  return 0


def _dry_run(runs: 'Sequence[design.Planned]') -> int:
  """Prints epsilon of every arm, and time if some rounds may be run."""
  from tff_pipeline.sweeps import pricing
  from tff_pipeline.sweeps import view

  priced = pricing.prices(runs)
  if not _PROBE.value:
    print(view.price_table(runs, priced, probes=None))
    return 0
  processes = side_by_side(len(runs))
  threads = _threads(processes)
  probes = {}
  for run, price in zip(runs, priced, strict=True):
    kind = pricing.kind(run)
    if kind not in probes:
      print(
        f'timing {_PROBE_ROUNDS} rounds of {run.directory} ...',
        file=sys.stderr,
      )
      probes[kind] = _measure(run, price, threads)
  found = [probes[pricing.kind(run)] for run in runs]
  print(view.price_table(runs, priced, probes=found))
  seconds = [
    p.estimate(price.rounds) for p, price in zip(found, priced, strict=True)
  ]
  print(
    view.time_summary(
      seconds, processes=processes, memory=max(p.bytes for p in found)
    )
  )
  return 0


def _measure(
  run: 'design.Planned', price: 'pricing.Price', threads: int
) -> 'pricing.Probe':
  """Runs some rounds in a process of its own, and throws them away."""
  from tff_pipeline.sweeps import execution
  from tff_pipeline.sweeps import pricing

  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary) / 'run'
    started = time.perf_counter()
    done = subprocess.run(
      [*_probe_command(run, price), f'--output_dir={folder}'],
      env=dict(os.environ) | execution.environment(threads),
      capture_output=True,
      text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
      raise validate.UsageError(
        f'{run.directory} cannot be timed: it fails: '
        + ' '.join(done.stderr.splitlines()[-1:])
      )
    with open(folder / 'metrics.csv', encoding='utf-8') as file:
      rows = [{k: float(v) for k, v in r.items()} for r in csv.DictReader(file)]
  return pricing.probe(
    seconds, rows, evaluate_every=run.experiment.evaluate_every
  )


def _probe_command(run: 'design.Planned', price: 'pricing.Price') -> list[str]:
  """Returns the run with few rounds, and nothing left to solve."""
  command = list(_train(run, config_flags.given(flags.FLAGS)))
  if price.solved is not None:
    targets = ('--privacy.target_epsilon=', '--privacy.solve_for=')
    command = [word for word in command if not word.startswith(targets)]
    command.append(f'--{price.solved[0]}={price.solved[1]}')
  return [*command, f'--rounds={min(_PROBE_ROUNDS, price.rounds)}']


if __name__ == '__main__':
  define_flags()
  cli.run(main)
