"""Whole runs that take a second or two, and how to interrupt and compare them.

Two runs are the same if rows, weights and server state agree to TOLERANCE:
TensorFlow may add up floats in another order.
"""

from collections.abc import Iterator
import contextlib
import csv
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline.engines import client_store
from tff_pipeline.engines import engine as engines
from tff_pipeline.experiment import building
from tff_pipeline.experiment import session
from tff_pipeline.outputs import checkpoints
from tff_pipeline.privacy import noise_key as noise_keys

ROUNDS = 6
TIMINGS = {
  'round_seconds',
  'evaluate_seconds',
  'price_seconds',
  'whole_seconds',
  'clients_per_second',
  'rss_mb',
}
TOLERANCE = 1e-5
KEYS = noise_keys.draw(), noise_keys.draw()  # Of all runs without a noise seed.


def build(**changes: Any) -> config.Experiment:
  """Returns a small private experiment, with these leaves of its own."""
  whole = config.Experiment(
    task=config.Task(
      name='digits', model='softmax_regression', partition='iid', clients=60
    ),
    cohort=config.poisson(6),
    client=config.Client(batch_size=10, learning_rate=0.2),
    server=config.Server(learning_rate=1.0, momentum=0.5),
    privacy=config.gaussian(
      noise_multiplier=1.0,
      clip_norm=0.5,
      delta=1e-3,
      population=60,
      noise_seed=7,
    ),
    rounds=ROUNDS,
    evaluate_every=2,
    checkpoint_every=2,
    engine='in_process',
  )
  return dataclasses.replace(whole, **changes)


def privacy(**changes: Any) -> config.Privacy:
  """Returns the privacy of `build()` with some leaves of its own."""
  return dataclasses.replace(build().privacy, **changes)


_parts: dict[str, experiment.Parts] = {}


@contextlib.contextmanager
def cached_parts() -> Iterator[None]:
  """Builds equal models and processes once: that is most of a small run."""
  original = building.build

  def cached(
    wanted: config.Experiment,
    *,
    noise_key: noise_keys.NoiseKey,
    data_dir: None = None,
  ) -> experiment.Parts:
    leaves = config.to_dict(wanted)
    for name in ('rounds', 'evaluate_every', 'checkpoint_every'):
      leaves.pop(name)
    key = json.dumps([leaves, noise_key], sort_keys=True)
    if key not in _parts:
      _parts[key] = original(wanted, noise_key=noise_key)
    return _parts[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(building, 'build', cached)
    yield


@contextlib.contextmanager
def without_reports() -> Iterator[None]:
  """Draws no pages: that is half of the time of a small run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session, '_write_report', lambda folder: None)
    yield


class Crash(Exception):
  """Ends a run as abruptly as an exception can."""


@contextlib.contextmanager
def crash_in(round_num: int, *, trained: bool = False) -> Iterator[None]:
  """Crashes runs in this round, before or after its training."""
  original = session._train

  def train(engine, state, current, clients):
    if current != round_num:
      return original(engine, state, current, clients)
    if trained:
      original(engine, state, current, clients)
    raise Crash

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session, '_train', train)
    yield


def crashed(
  wanted: config.Experiment, folder: pathlib.Path, *, in_round: int
) -> None:
  """Leaves `folder` as a crash in a round does."""
  with crash_in(in_round), pytest.raises(Crash):
    experiment.run(wanted, folder)


def rows(folder: pathlib.Path) -> list[dict[str, str]]:
  """Returns the rows of metrics.csv, as text, without timings."""
  with open(folder / 'metrics.csv', encoding='utf-8') as file:
    return [
      {name: value for name, value in row.items() if name not in TIMINGS}
      for row in csv.DictReader(file)
    ]


def ledger(folder: pathlib.Path) -> list[tuple[int, int, str]]:
  """Returns (round, attempt, fingerprint) of each line of the ledger."""
  lines = (folder / 'ledger').read_text(encoding='utf-8').splitlines()
  return [tuple(json.loads(line).values()) for line in lines]


def attempts(folder: pathlib.Path) -> list[tuple[int, int]]:
  """Returns (round, attempt) of each line of the ledger."""
  return [(r, attempt) for r, attempt, _ in ledger(folder)]


def weights(folder: pathlib.Path) -> list[np.ndarray]:
  """Returns the weights of the saved model."""
  model = tf.keras.models.load_model(folder / 'model')
  return [variable.numpy() for variable in model.trainable_variables]


def state(folder: pathlib.Path, wanted: config.Experiment) -> list[Any]:
  """Returns round and flat server state of the newest checkpoint."""
  seed = wanted.privacy.noise_seed
  key = KEYS[0] if seed is None else noise_keys.from_seed(seed)
  with building.build(wanted, noise_key=key).engine as engine:
    structure = engine.initialize()
  found, round_num = checkpoints.Checkpoints(
    folder / 'checkpoints', warn=pytest.fail
  ).restore(structure)
  return [round_num, *tf.nest.flatten(found)]


def client_states(
  folder: pathlib.Path, engine: engines.Engine
) -> tuple[int, dict[int, Any]]:
  """Returns round and client states of the newest checkpoint."""
  store = client_store.Store(engine.channel)
  opened = checkpoints.Checkpoints(
    folder / 'checkpoints', warn=pytest.fail, store=store
  )
  with engine:
    opened.restore(engine.initialize())
  return store.version, {c: store.state(c) for c in store.clients}


def assert_same_client_states(
  one: pathlib.Path, other: pathlib.Path, engine: engines.Engine
) -> None:
  """Asserts that the clients of two finished runs kept the same."""
  version, found = client_states(one, engine)
  wanted_version, wanted = client_states(other, engine)
  assert version == wanted_version == ROUNDS
  assert found.keys() == wanted.keys()
  for client, state in found.items():
    _assert_close(tf.nest.flatten(state), tf.nest.flatten(wanted[client]))


def assert_same(
  one: pathlib.Path, other: pathlib.Path, wanted: config.Experiment
) -> None:
  """Asserts that two finished runs differ in timings and attempts alone."""
  assert_same_rows(rows(one), rows(other))
  _assert_close(weights(one), weights(other))
  _assert_close(state(one, wanted), state(other, wanted))
  ours, theirs = (
    json.loads((folder / 'privacy.json').read_text()) for folder in (one, other)
  )
  for statement in (ours, theirs):
    statement.pop('attempts_replayed')
  assert ours == theirs


def assert_finished_like(folder: pathlib.Path, whole: pathlib.Path) -> None:
  """Asserts that a run of `build()` ended as an uninterrupted one did."""
  assert_same(folder, whole, build())
  summary = json.loads((folder / 'summary.json').read_text())
  assert summary['status'] == experiment.FINISHED


def assert_same_rows(
  ours: list[dict[str, str]], theirs: list[dict[str, str]]
) -> None:
  """Asserts that rows agree to TOLERANCE."""
  assert [list(row) for row in ours] == [list(row) for row in theirs]
  _assert_close(
    [float(value) for row in ours for value in row.values()],
    [float(value) for row in theirs for value in row.values()],
  )


def _assert_close(ours: list[Any], theirs: list[Any]) -> None:
  for a, b in zip(ours, theirs, strict=True):
    if np.issubdtype(np.asarray(a).dtype, np.floating):
      np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
    else:
      np.testing.assert_array_equal(a, b)


def snapshot(folder: pathlib.Path) -> dict[pathlib.Path, tuple[int, bytes]]:
  """Returns what is in a folder, and when it was last written."""
  return {
    path: (path.stat().st_mtime_ns, path.read_bytes())
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
