"""Measures every standard task briefly, and writes the table of docs/tasks.md.

  python -m experiments.task_table --data_dir=DATA --output=docs/tasks.md

Each task of CASES is trained twice for a few rounds, without and with
differential privacy. That shows that it learns and what a round costs; it is no
benchmark, and nothing is tuned. The other tasks, which need a download, get
their model's size only, from their stand-ins.
"""

from experiments import cli  # First: it sets TensorFlow's environment.

# isort: split
import csv
import dataclasses
import datetime
import os
import pathlib
import statistics
import tempfile
from typing import Any

from absl import flags

from tff_pipeline import config
from tff_pipeline import validate

_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of the data sets.')
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Page whose table is replaced; unset prints it alone.'
)
_TASKS = flags.DEFINE_list(
  'tasks', None, 'Tasks to measure, comma-separated; unset means all.'
)

BEGIN, END = '<!-- table: begin -->', '<!-- table: end -->'
_HEADER = (
  'task',
  'clients',
  'examples: train, test',
  'model',
  'parameters',
  'rounds, cohort',
  'metric',
  'not private (epsilon infinite)',
  'private',
  'its epsilon, delta, unit, relation',
  's a round',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """How a task is measured.

  Attributes:
    task: Leaves beside the name.
    client: Leaves of the client.
    rounds: Rounds of either run.
    cohort: Expected cohort size under Poisson sampling; `None` is everybody.
    noise: Noise multiplier.
    clip: Clip norm.
    delta: Delta.
    private_rate: Learning rate of the private run, if another.
  """

  client: dict[str, Any]
  rounds: int
  cohort: int | None
  noise: float
  clip: float
  delta: float
  task: dict[str, Any] = dataclasses.field(default_factory=dict)
  private_rate: float | None = None


_IMAGES = Case(
  task={'partition': 'iid', 'clients': 1000},
  client={'batch_size': 10, 'learning_rate': 0.1},
  rounds=20,
  cohort=50,
  noise=1.0,
  clip=0.5,
  delta=1e-4,
)
_TWO_NN = dataclasses.replace(_IMAGES, task=_IMAGES.task | {'model': 'two_nn'})
# Few clients: privacy of one example, by DP-SGD on the clients.
_SILOS = {'cohort': None, 'noise': 2.0, 'clip': 1.0, 'delta': 1e-4}
CASES = {
  'mnist': _TWO_NN,
  'fashion_mnist': _TWO_NN,
  'digits': Case(
    task={'partition': 'iid', 'clients': 360},
    client={'epochs': 3, 'batch_size': 4, 'learning_rate': 0.3},
    rounds=20,
    cohort=120,
    noise=3.0,
    clip=1.0,
    delta=1e-4,
  ),
  'shakespeare': Case(
    client={'batch_size': 4, 'learning_rate': 1.0},
    rounds=20,
    cohort=20,
    noise=0.5,
    clip=1.0,
    delta=1e-4,
    task={'max_client_examples': 100},
  ),
  'har': Case(
    client={'batch_size': 32, 'learning_rate': 0.1}, rounds=20, **_SILOS
  ),
  'heart_disease': Case(
    client={'batch_size': 16, 'learning_rate': 0.1}, rounds=20, **_SILOS
  ),
  'synthetic': Case(
    task={'labelling': 'own', 'alpha': 1.0, 'beta': 1.0},
    client={'batch_size': 10, 'learning_rate': 0.01},
    rounds=20,
    **_SILOS,
  ),
}
# What the stand-ins of the others need.
_STAND_IN = {'cifar10': {'partition': 'iid', 'clients': 10}}


def main() -> None:
  """Measures, and writes or prints the table."""
  from tff_pipeline import tasks  # Late: `--help` must not pay for it.

  chosen = _TASKS.value or [name for name in tasks.TASKS if _is_standard(name)]
  for name in chosen:
    validate.check_choice('tasks', name, tuple(tasks.TASKS))
  cli.log_to_stderr()
  rows = [_row(name) for name in chosen]
  lines = [_HEADER, ('---',) * len(_HEADER), *rows]
  table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  table += (
    f'\n\nMeasured {datetime.date.today()} by the command above, on '
    f'{os.cpu_count()} cores that may have had other work: take times as '
    'orders of magnitude.'
  )
  if not _OUTPUT.value:
    print(table)
    return
  page = pathlib.Path(_OUTPUT.value)
  page.write_text(
    replaced(page.read_text(encoding='utf-8'), table), encoding='utf-8'
  )


def replaced(page: str, table: str) -> str:
  """Returns the page with another table between its two marks."""
  before, begin, rest = page.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not (begin and end):
    raise validate.error(
      'output', expected=f'a page with {BEGIN} and {END}', found='none of them'
    )
  return f'{before}{BEGIN}\n{table}\n{END}{after}'


def _is_standard(name: str) -> bool:
  """Returns whether a task is more than a reader of the user's own files."""
  from tff_pipeline import tasks

  return not tasks.TASKS[name].data.startswith('files.')


def _row(name: str) -> tuple[str, ...]:
  from tff_pipeline import tasks

  case = CASES.get(name)
  if case is None:
    task = config.Task(name=name, source='stand_in', **_STAND_IN.get(name, {}))
    size = tasks.build(task, seed=0).model_factory().count_params()
    model = tasks.TASKS[name].models[0]
    return (
      name,
      '–',
      '–',
      model,
      f'{size:,}',
      *['–'] * 3,
      *['not here'] * 2,
      '–',
    )
  task = config.Task(name=name, **case.task)
  built = tasks.build(task, seed=0, data_dir=_DATA_DIR.value)
  plain, seconds = _run(case, task, config.no_privacy(), case.client)
  rate = case.private_rate or case.client['learning_rate']
  private, _ = _run(
    case,
    task,
    _privacy(case, built.train.num_clients),
    case.client | {'learning_rate': rate},
  )
  (metric,) = built.metric_factory()
  statement = private['privacy']
  return (
    name,
    f'{built.train.num_clients:,}',
    f'{len(built.train.examples):,}, {len(built.test):,}',
    task.model or tasks.TASKS[name].models[0],
    f'{built.model_factory().count_params():,}',
    f'{case.rounds}, {case.cohort or "all"}',
    metric,
    f'{plain["test"][metric]:.3f}',
    f'{private["test"][metric]:.3f}',
    f'{float(statement["epsilon"]):.3g}, {case.delta:g}, '
    f'{statement["unit"]}, {statement["relation"]}',
    f'{seconds:.2f}',
  )


def _privacy(case: Case, clients: int) -> config.Privacy:
  mechanism = (
    config.Mechanism.DP_SGD
    if case.cohort is None
    else config.Mechanism.GAUSSIAN
  )
  return config.Privacy(
    mechanism=mechanism,
    noise_multiplier=case.noise,
    clip_norm=case.clip,
    delta=case.delta,
    population=clients,
  )


def _run(
  case: Case,
  task: config.Task,
  privacy: config.Privacy,
  client: dict[str, Any],
) -> tuple[dict[str, Any], float]:
  """Returns the summary, and the median seconds of a round after the first."""
  from tff_pipeline import experiment

  cohort = config.full() if case.cohort is None else config.poisson(case.cohort)
  wanted = config.Experiment(
    task=task,
    cohort=cohort,
    client=config.Client(**client),
    server=config.Server(learning_rate=1.0),
    privacy=privacy,
    rounds=case.rounds,
    evaluate_every=case.rounds,
    checkpoint_every=case.rounds,
  )
  with tempfile.TemporaryDirectory() as folder:
    summary = experiment.run(wanted, folder, data_dir=_DATA_DIR.value)
    with open(pathlib.Path(folder) / 'metrics.csv', encoding='utf-8') as file:
      seconds = [float(row['round_seconds']) for row in csv.DictReader(file)]
  return summary, statistics.median(seconds[1:])


if __name__ == '__main__':
  cli.run(main)
