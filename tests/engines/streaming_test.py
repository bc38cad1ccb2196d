"""Clients in a file train as those in memory do, as fast, in constant memory.

The slow test generates 100,000 clients. Run it alone on an idle machine for
figures to believe:

  python -m pytest -m slow -s tests/engines/streaming_test.py
"""

import time

import numpy as np
import psutil
import pytest
import tensorflow_federated as tff

from tests.data import sqlite_files
from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop
from tff_pipeline.engines import engine as engines
from tff_pipeline.models import functional

_SCHEDULE = training_loop.Schedule(
  epochs=1, batch_size=5, shuffle=config.Shuffle.ON
)
_COHORT = 100


def _build(task, data, *, engine=config.EngineName.IN_PROCESS):
  model = functional.build(
    functional.keras_model(task.model_factory, seed=0),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )
  process = fed_avg.build(
    model,
    client_optimizer=tff.learning.optimizers.build_sgdm(0.1),
    server_optimizer=tff.learning.optimizers.build_sgdm(1.0),
    schedule=_SCHEDULE,
    protection=protection.UNPROTECTED,
    aggregator=tff.aggregators.UnweightedMeanFactory(),
    weighting=config.Weighting.UNIFORM,
  )
  return engines.build(
    engine, process, data=data, schedule=_SCHEDULE, seed=3, noise_key=(5, -6)
  )


def _task(folder, clients, **leaves):
  path = sqlite_files.write(folder / 'large.sqlite', clients=clients)
  return tasks.build(
    config.Task(
      name='tff_sqlite',
      path=str(path),
      label_column='label',
      classes=sqlite_files.CLASSES,
      **leaves,
    ),
    seed=0,
  )


def _cohort(round_num, clients):
  rng = np.random.default_rng([round_num, 5])
  return rng.choice(clients, min(_COHORT, clients), replace=False)


def _rounds(engine, data, *, number, first=1, state=None):
  """Runs rounds as an experiment does: the next cohort is announced."""
  state = engine.initialize() if state is None else state
  seconds = []
  for round_num in range(first, first + number):
    started = time.perf_counter()
    data.prefetch(_cohort(round_num + 1, data.num_clients))
    state = engine.round(
      state, round_num=round_num, clients=_cohort(round_num, data.num_clients)
    ).state
    seconds.append(time.perf_counter() - started)
  return state, seconds


@pytest.mark.parametrize('engine', list(config.EngineName))
def test_rounds_are_the_same_as_in_memory(tmp_path, engine):
  task = _task(tmp_path, clients=30)
  weights = []
  start = None
  for data in (task.train, task.train.in_memory()):
    with _build(task, data, engine=engine) as built:
      start = start or built.initialize()
      state, _ = _rounds(built, data, number=3, state=start)
      weights.append(state.global_model_weights.trainable)
  for ours, theirs in zip(*weights, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_cohorts_of_other_sizes_are_not_traced_again(tmp_path):
  task = _task(tmp_path, clients=30)
  with _build(task, task.train) as engine:
    state = engine.initialize()
    for cohort in ([1, 2], [], [3, 7, 9, 29], [5]):
      state = engine.round(
        state, round_num=1, clients=np.array(cohort, np.int64)
      ).state
    assert engine.num_traces == 1


@pytest.mark.slow
def test_100_000_clients_in_constant_memory_at_the_speed_of_memory(tmp_path):
  clients, measured = 100_000, 40
  task = _task(tmp_path, clients=clients)
  size_mb = (tmp_path / 'large.sqlite').stat().st_size / 1e6
  process = psutil.Process()

  def megabytes():
    return process.memory_info().rss / 1e6

  with _build(task, task.train) as engine:
    state, _ = _rounds(engine, task.train, number=10)
    before = megabytes()
    state, streamed = _rounds(
      engine, task.train, number=measured, first=11, state=state
    )
    after = megabytes()
  memory = task.train.in_memory()
  with _build(task, memory) as engine:
    state, _ = _rounds(engine, memory, number=10)
    _, in_memory = _rounds(
      engine, memory, number=measured, first=11, state=state
    )
  times = {'streamed': np.median(streamed), 'in memory': np.median(in_memory)}
  print(
    f'\n{clients} clients, file {size_mb:.0f} MB, cohorts of {_COHORT}; '
    f'median of {measured} rounds: '
    + ', '.join(f'{name} {1e3 * s:.1f} ms' for name, s in times.items())
    + f'; resident memory {before:.0f} -> {after:.0f} MB while streaming'
  )
  assert times['streamed'] < 2 * times['in memory']
  # A cohort is 0.3 MB; all examples would be 260 MB.
  assert after - before < 20
