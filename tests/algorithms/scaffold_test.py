"""SCAFFOLD against the paper's algorithm in NumPy, and its special cases."""

import dataclasses
import time

import numpy as np
import psutil
import pytest

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline.algorithms import scaffold
from tff_pipeline.algorithms import table
from tff_pipeline.data import client_data
from tff_pipeline.engines import client_store
from tff_pipeline.engines import engine as engines

_ALGORITHM = config.Algorithm(name='scaffold')
_FED_AVG = config.Algorithm()


def _build(**settings):
  return cohorts.build(_ALGORITHM, factory=cohorts.linear, **settings)


def _reference(some, *, client, server_rate=1.0, population=6):
  """Algorithm 1, option II; returns weights by round, c and the c_k."""
  weights, found, controls = cohorts.numpy_start(), [], {}
  mean = [np.zeros_like(w) for w in weights]
  for cohort in some:
    data = cohorts.numpy_clients(cohorts.data(), cohort)
    updates, changes = [], []
    for index, (x, y) in zip(cohort, data, strict=True):
      own = controls.get(index, [np.zeros_like(w) for w in weights])
      drift = {id(w): c - o for w, c, o in zip(weights, mean, own, strict=True)}
      trained = cohorts.numpy_steps(
        weights, x, y, client=client, drift=lambda w, s, d=drift: d[id(s)]
      )
      steps = client.epochs * -(-len(y) // client.batch_size)
      if client.max_steps is not None:
        steps = min(steps, client.max_steps)
      new = [
        o - c + (w - t) / (steps * client.learning_rate)
        for o, c, w, t in zip(own, mean, weights, trained, strict=True)
      ]
      updates.append([t - w for t, w in zip(trained, weights, strict=True)])
      changes.append([n - o for n, o in zip(new, own, strict=True)])
      controls[index] = new
    if cohort:
      weights = [
        w + server_rate * np.mean(u, axis=0)
        for w, *u in zip(weights, *updates, strict=True)
      ]
      mean = [
        c + np.sum(d, axis=0) / population
        for c, *d in zip(mean, *changes, strict=True)
      ]
    found.append(weights)
  return found, mean, controls


@pytest.fixture(scope='module')
def whole():
  return cohorts.run_and_keep(_build(), cohorts=cohorts.RETURNING)


def _assert_equals_the_paper(run, expected):
  rounds, state, store = run
  weights, mean, controls = expected
  for (found, _), wanted in zip(rounds, weights, strict=True):
    cohorts.assert_close(found, wanted)
  assert store.clients == sorted(controls) == [0, 1, 2, 3, 4]
  for index, wanted in controls.items():
    cohorts.assert_close(store.state(index)[scaffold.CONTROL], wanted)
  cohorts.assert_close(state.client_work[scaffold.CONTROL], mean)


def test_equals_the_papers_algorithm(whole):
  """Unequal clients, cohorts of many sizes, weights and all states."""
  expected = _reference(cohorts.RETURNING, client=cohorts.CLIENT)
  _assert_equals_the_paper(whole, expected)


@pytest.mark.slow
def test_equals_the_papers_algorithm_of_other_settings(whole):
  server = dataclasses.replace(cohorts.SERVER, learning_rate=0.7)
  run = cohorts.run_and_keep(
    _build(server=server, population=60), cohorts=cohorts.RETURNING
  )
  settings = {'server_rate': 0.7, 'population': 60}
  expected = _reference(cohorts.RETURNING, client=cohorts.CLIENT, **settings)
  _assert_equals_the_paper(run, expected)
  assert np.abs(run[0][-1][0][0] - whole[0][-1][0][0]).max() > 1e-3


def test_servers_control_is_the_mean_of_all_clients(whole):
  """Who never took part counts with zero: /N, not /|cohort|."""
  _, state, store = whole
  sums = [
    np.sum(parts, axis=0)
    for parts in zip(
      *(store.state(i)[scaffold.CONTROL] for i in store.clients), strict=True
    )
  ]
  cohorts.assert_close(
    state.client_work[scaffold.CONTROL], [s / 6 for s in sums]
  )
  assert max(np.abs(s).max() for s in sums) > 1e-2


def test_first_round_is_fed_avg_and_the_fourth_is_not(whole):
  plain = cohorts.run(
    cohorts.build(_FED_AVG, factory=cohorts.linear), cohorts=cohorts.RETURNING
  )
  ours, *_ = whole
  cohorts.assert_equal(ours[:1], plain[:1], tolerance=1e-6)
  assert np.abs(ours[3][0][0] - plain[3][0][0]).max() > 1e-4


def test_one_client_in_every_round_is_its_sgd():
  """c_1 = c always, so that no step is corrected."""
  client = cohorts.CLIENT
  rounds = cohorts.run(_build(population=1), cohorts=[[3]] * 4)
  [(x, y)] = cohorts.numpy_clients(cohorts.data(), [3])
  weights = cohorts.numpy_start()
  for found, _ in rounds:
    weights = cohorts.numpy_steps(weights, x, y, client=client)
    cohorts.assert_close(found, weights)


def test_steps_are_those_that_were_taken():
  client = dataclasses.replace(cohorts.CLIENT, max_steps=3)
  rounds, _, store = cohorts.run_and_keep(
    _build(client=client), client=client, cohorts=[[2]]
  )
  x, y = cohorts.numpy_clients(cohorts.data(), [2])[0]
  # Three steps of five of twelve examples, the third over the last two.
  start = cohorts.numpy_start()
  trained = cohorts.numpy_steps(
    start, x, y, client=dataclasses.replace(client, epochs=1)
  )
  cohorts.assert_close(rounds[0][0], trained)
  control = [(w - t) / 0.3 for w, t in zip(start, trained, strict=True)]
  cohorts.assert_close(store.state(2)[scaffold.CONTROL], control)


@pytest.mark.slow
def test_scheduled_rate_divides_the_way():
  """Round 2 of a schedule that halves equals round 1 at half the rate."""
  client = dataclasses.replace(
    cohorts.CLIENT, decay='exponential', decay_rounds=1, decay_factor=0.5
  )
  half = dataclasses.replace(cohorts.CLIENT, learning_rate=0.05)
  scheduled, _, kept = cohorts.run_and_keep(
    _build(client=client), client=client, cohorts=[[], [2, 3]]
  )
  plain, _, expected = cohorts.run_and_keep(
    _build(client=half), client=half, cohorts=[[2, 3]]
  )
  cohorts.assert_equal(scheduled[1:], plain, tolerance=1e-6)
  for index in (2, 3):
    cohorts.assert_close(
      kept.state(index)[scaffold.CONTROL],
      expected.state(index)[scaffold.CONTROL],
    )


def test_rejected_client_keeps_its_control_and_changes_nothing(whole):
  data = cohorts.data()
  first = slice(data.offsets[2], data.offsets[3])
  data.examples.x[first] = np.inf
  rounds, _, kept = cohorts.run_and_keep(
    _build(), clients=data, cohorts=cohorts.RETURNING
  )
  assert all(np.all(c == 0) for c in kept.state(2)[scaffold.CONTROL])
  assert np.abs(whole[2].state(2)[scaffold.CONTROL][0]).max() > 1e-3
  assert rounds[0][1]['client_work']['train']['rejected_updates'] == 1
  assert all(np.all(np.isfinite(w)) for w in rounds[-1][0])


def _many_clients(number):
  """Returns clients of five examples each."""
  x, y = small_models.examples(small_models.build(small_models.dense), 5)
  rows = np.arange(5 * number) % 5
  return client_data.ClientData(
    client_data.Examples(x[rows], y[rows]),
    5 * np.arange(number + 1, dtype=np.int64),
  )


@pytest.mark.slow
def test_100_000_clients_cost_what_takes_part():
  """Memory is participants x state, time is the cohort's, whatever N is."""
  cohort, rounds, found = 20, 60, {}
  for number in (1_000, 100_000):
    data = _many_clients(number)
    process = cohorts.build(
      _ALGORITHM, factory=small_models.dense, population=number
    )
    engine = engines.build(
      'in_process',
      process,
      data=data,
      schedule=table.schedule(cohorts.CLIENT),
      seed=3,
      noise_key=cohorts.KEY,
    )
    rng = np.random.default_rng(number)
    with engine:
      store = client_store.for_channel(engine.channel)
      runner = client_store.keeping(engine, store)
      state, seconds, before = engine.initialize(), [], 0
      for round_num in range(1, rounds + 1):
        if round_num == 20:
          before = psutil.Process().memory_info().rss
        started = time.perf_counter()
        clients = rng.choice(number, cohort, replace=False)
        state = runner.round(state, round_num=round_num, clients=clients).state
        seconds.append(time.perf_counter() - started)
    grown = psutil.Process().memory_info().rss - before
    found[number] = np.median(seconds[20:])
    print(
      f'{number} clients, cohorts of {cohort}: {store.num_participants} took '
      f'part in {rounds} rounds; round {1e3 * found[number]:.1f} ms; resident '
      f'memory +{grown / 1e6:.1f} MB over the last {rounds - 20}'
    )
    assert store.num_participants <= cohort * rounds
    # 800 states of 59 floats are 0.2 MB; 100,000 would be 24 MB.
    assert grown < 10e6
  assert store.num_participants > 0.9 * cohort * rounds
  assert found[100_000] < 2 * found[1_000]
