"""Times a round of each engine, side by side: a table, a CSV and a picture.

  python -m experiments.benchmark --cases=2nn/10,cnn/10 --output_dir=runs/bench

A case is a model and a cohort size. Every client has random data and trains one
epoch: 100 images in batches of 20, or 40 sequences of 80 characters in batches
of 4. Engines take turns, so that a machine whose speed drifts does not favour
one. The first round of each, which compiles, is reported apart.

  stock         TFF's build_unweighted_fed_avg on TFF's runtime, as installed
  stock_onednn  the same with the setting of TensorFlow that all below have:
                TF_ENABLE_ONEDNN_OPTS=1, which new Intel processors have anyway
  dense         our client work on TFF's runtime
  in_process    our client work inside TensorFlow
  bare          a loop of TensorFlow over the same tensors: no engine, no server

With --mechanisms, in_process is also timed under privacy, for the 2NN with
cohorts of 100; the mechanisms take turns likewise.

The heavy parts are optional: --mechanisms, --scaling, --memory_rounds,
--startup. Run them one by one into the same directory; the picture and the page
show all that is there.
"""

# isort: off
from experiments import cli  # First: it sets TensorFlow's environment.
# isort: on

import collections
from collections.abc import Callable, Iterable, Mapping
import contextlib
import functools
import itertools
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from absl import flags

from tff_pipeline import validate

_MODELS = ('2nn', 'cnn', 'lstm')
_ENGINES = ('stock', 'stock_onednn', 'dense', 'in_process', 'bare')
_SCALING = ('cohort', 'client_size', 'threads')
_MECHANISMS = ('none', 'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd')

_CASES = flags.DEFINE_list(
  'cases',
  ['2nn/10', '2nn/100', '2nn/1000', 'cnn/10', 'lstm/10'],
  'model/cohort, comma-separated; empty for none.',
)
_ENGINE_NAMES = flags.DEFINE_list(
  'engines', list(_ENGINES), 'Which engines, comma-separated.'
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 5, 'Timed rounds of each engine, after the first one.', 1
)
_SCALE = flags.DEFINE_list(
  'scaling', [], f'Also vary, for the 2NN: {", ".join(_SCALING)}.'
)
_PRIVATE = flags.DEFINE_list(
  'mechanisms',
  [],
  f'Also time these under privacy: {", ".join(_MECHANISMS)}.',
)
_MEMORY_ROUNDS = flags.DEFINE_integer(
  'memory_rounds', 0, 'Also record resident memory over this many rounds.', 0
)
_STARTUP = flags.DEFINE_integer(
  'startup', 0, 'Also time this many starts, each in a process of its own.', 0
)
_START_ONCE = flags.DEFINE_bool(
  'start_once', False, 'Only print the times of one start; used by --startup.'
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Where the CSV files, picture and page go.'
)


def main() -> None:
  """Runs the parts that the command line asks for."""
  cases = [_case(text) for text in _CASES.value]
  for name in _ENGINE_NAMES.value:
    validate.check_choice('engines', name, _ENGINES)
  for name in _SCALE.value:
    validate.check_choice('scaling', name, _SCALING)
  for name in _PRIVATE.value:
    validate.check_choice('mechanisms', name, _MECHANISMS)
  if _START_ONCE.value:
    print(*(f'{name}={value}' for name, value in _start_once().items()))
    return
  record = _Record(_OUTPUT_DIR.value)
  if _STARTUP.value:
    record.write('startup', _starts(_STARTUP.value))
  _one_core_per_client()
  for number, (model, cohort) in enumerate(cases):
    rows = _time(model, cohort)
    _print_case(model, cohort, rows, header=number == 0)
    record.write('cases', rows, replace=('model', 'cohort'))
  if _PRIVATE.value:
    rows = _time('2nn', 100, ways=_private_ways(), column='mechanism')
    _print_mechanisms(rows)
    record.write('mechanisms', rows)
  for axis in _SCALE.value:
    record.write('scaling', list(_scale(axis)), replace=('axis',))
  if _MEMORY_ROUNDS.value:
    record.write('memory', _memory(_MEMORY_ROUNDS.value))
  record.show()


def _case(text: str) -> tuple[str, int]:
  model, _, cohort = text.partition('/')
  validate.check_choice('cases', model, _MODELS)
  if not cohort.isdigit() or int(cohort) < 1:
    raise validate.error(
      'cases', expected='model/cohort such as 2nn/10', found=text
    )
  return model, int(cohort)


def _one_core_per_client() -> None:
  from tff_pipeline.engines import threads

  threads.prefer_clients(os.cpu_count() or 1)


class _Record:
  """The CSV files of a directory, and what is drawn from them."""

  def __init__(self, folder: str | None):
    self._folder = None if folder is None else pathlib.Path(folder)

  def write(
    self,
    name: str,
    rows: list[dict[str, Any]],
    *,
    replace: tuple[str, ...] = (),
  ) -> None:
    """Writes rows; keeps older ones that differ from them in `replace`."""
    if self._folder is None:
      return
    import pandas as pd

    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / f'benchmark_{name}.csv'
    table = pd.DataFrame(rows)
    if replace and path.exists():
      older = pd.read_csv(path)
      new = set(table[list(replace)].astype(str).agg('/'.join, axis=1))
      keys = older[list(replace)].astype(str).agg('/'.join, axis=1)
      table = pd.concat([older[~keys.isin(new)], table])
    table.to_csv(path, index=False, float_format='%.6g')

  def show(self) -> None:
    """Draws the picture and writes the page."""
    if self._folder is None:
      return
    from experiments import benchmark_page

    benchmark_page.write(self._folder)


def _time(
  model: str,
  cohort: int,
  *,
  ways: Mapping[str, Callable[..., Any]] | None = None,
  column: str = 'engine',
  examples: int | None = None,
  threads: int | None = None,
) -> list[dict[str, Any]]:
  """Returns a row for each round of each way; round 0 is the first one.

  Args:
    model: A workload's name.
    cohort: Clients of a round.
    ways: Name -> (workload, data, threads=) -> engine; unset means --engines.
    column: What the names are called in a row.
    examples: Examples of a client, if other than usual.
    threads: Clients at the same time; unset means one per core.
  """
  import numpy as np

  from experiments import benchmark_cases
  from experiments import benchmark_memory

  workload = benchmark_cases.workload(model, examples=examples)
  data = workload.draw(cohort)
  rows = []
  with contextlib.ExitStack() as stack:
    runs = {}
    for name, build in (ways or _engine_ways(_ENGINE_NAMES.value)).items():
      engine = stack.enter_context(
        build(workload, data, threads=threads or os.cpu_count() or 1)
      )
      runs[name] = engine, engine.initialize()
    for number, name in itertools.product(range(_ROUNDS.value + 1), runs):
      engine, state = runs[name]
      with benchmark_memory.Peak(getattr(engine, 'worker_pid', None)) as peak:
        started = time.perf_counter()
        done = engine.round(state, round_num=1, clients=np.arange(cohort))
        seconds = time.perf_counter() - started
      runs[name] = engine, done.state
      rows.append(
        {
          'model': model,
          'cohort': cohort,
          column: name,
          'round': number,
          'seconds': seconds,
          'peak_mb': peak.megabytes,
        }
      )
  return rows


def _engine_ways(names: Iterable[str]) -> dict[str, Callable[..., Any]]:
  from experiments import benchmark_cases

  return {n: functools.partial(benchmark_cases.build, n) for n in names}


def _private_ways() -> dict[str, Callable[..., Any]]:
  from experiments import benchmark_cases

  return {
    name: functools.partial(benchmark_cases.build_private, name)
    for name in _PRIVATE.value
  }


def _print_mechanisms(rows: list[dict[str, Any]]) -> None:
  import pandas as pd

  from experiments import benchmark_page

  print(benchmark_page.mechanisms(pd.DataFrame(rows)).to_string(index=False))


def _print_case(
  model: str, cohort: int, rows: list[dict[str, Any]], *, header: bool
) -> None:
  import pandas as pd

  from experiments import benchmark_page

  summary = benchmark_page.summary(pd.DataFrame(rows))
  text = summary.to_string(index=False, header=header, col_space=10)
  print(text if header else text.lstrip('\n'), flush=True)


def _scale(axis: str) -> Any:
  """Yields rows of the 2NN in process, one axis varied."""
  cores = os.cpu_count() or 1
  settings = {
    'cohort': [{'cohort': n} for n in (1, 3, 10, 30, 100, 300)],
    'client_size': [{'examples': n} for n in (10, 30, 100, 300, 1000)],
    'threads': [{'threads': n} for n in range(1, 2 * cores + 1)],
  }[axis]
  for setting in settings:
    (value,) = setting.values()
    names = ('in_process', 'bare') if axis == 'threads' else _ENGINES
    rows = _time('2nn', **{'cohort': 10, **setting}, ways=_engine_ways(names))
    for row in rows:
      yield {'axis': axis, 'value': value, **row}


def _memory(rounds: int) -> list[dict[str, Any]]:
  """Returns resident memory along a run with cohorts of varying size."""
  import numpy as np

  from experiments import benchmark_cases
  from experiments import benchmark_memory

  clients = 200
  workload = benchmark_cases.workload('2nn')
  engine = benchmark_cases.build(
    'in_process', workload, workload.draw(clients), threads=os.cpu_count() or 1
  )
  rng = np.random.default_rng(0)
  rows = []
  with engine:
    state = engine.initialize()
    for number in range(1, rounds + 1):
      cohort = rng.permutation(clients)[: rng.integers(0, 40)]
      state = engine.round(state, round_num=number, clients=cohort).state
      rows.append({'round': number, 'rss_mb': benchmark_memory.resident()})
  return rows


def _start_once() -> dict[str, float]:
  """Returns seconds of import, set-up and first round of the 2NN."""
  import numpy as np

  times = collections.OrderedDict()
  started = time.perf_counter()

  def lap(name):
    nonlocal started
    times[name] = time.perf_counter() - started
    started = time.perf_counter()

  from experiments import benchmark_cases

  lap('import')
  _one_core_per_client()
  workload = benchmark_cases.workload('2nn')
  engine = benchmark_cases.build(
    'in_process', workload, workload.draw(10), threads=os.cpu_count() or 1
  )
  with engine:
    state = engine.initialize()
    lap('set_up')
    for name in ('first_round', 'second_round'):
      engine.round(state, round_num=1, clients=np.arange(10))
      lap(name)
  return times


def _starts(count: int) -> list[dict[str, float]]:
  """Returns what `_start_once` prints, in fresh processes."""
  rows = []
  for _ in range(count):
    done = subprocess.run(
      [sys.executable, '-m', 'experiments.benchmark', '--start_once'],
      check=True,
      capture_output=True,
      text=True,
    )
    print('start:', done.stdout.strip(), flush=True)
    pairs = (pair.split('=') for pair in done.stdout.split())
    rows.append({name: float(value) for name, value in pairs})
  return rows


if __name__ == '__main__':
  cli.run(main)
