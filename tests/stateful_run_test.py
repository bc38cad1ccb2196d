"""Whole runs of a process whose clients remember; crashes included."""

import collections
import json
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests import disk_images
from tests import small_runs
from tests import stateful_processes
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.algorithms import table
from tff_pipeline.experiment import building
from tff_pipeline.outputs import client_state_log

pytestmark = pytest.mark.usefixtures('without_reports')
_parts = {}


def build(**changes):
  """Returns a small experiment without privacy, which states go without."""
  return small_runs.build(privacy=config.no_privacy(), **changes)


def build_process(model, *, client, aggregator, **unused):
  """Builds the process that remembers, in the place of `table.build`."""
  del unused
  return stateful_processes.build(
    model, schedule=table.schedule(client), aggregator=aggregator
  )


@pytest.fixture(scope='module', autouse=True)
def remembering():
  """Every run trains the process that remembers; equal ones share it."""
  original = building.build

  def cached(wanted, *, noise_key, data_dir=None):
    del data_dir
    key = wanted.engine, wanted.privacy.mechanism
    if key not in _parts:
      _parts[key] = original(wanted, noise_key=noise_key)
    return _parts[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(table, 'build', build_process)
    patch.setattr(building, 'build', cached)
    yield
  _parts.clear()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  experiment.run(build(), folder)
  return folder


def _parts_of(wanted):
  return building.build(wanted, noise_key=small_runs.KEYS[0])


def _states(folder, wanted):
  """Returns round and client states of the newest checkpoint."""
  return small_runs.client_states(folder, _parts_of(wanted).engine)


def _assert_same_states(folder, whole):
  engine = _parts_of(build()).engine
  small_runs.assert_same_client_states(folder, whole, engine)


def test_run_keeps_the_states_of_who_took_part(whole):
  parts = _parts_of(build())
  cohorts = [parts.sampler(r) for r in range(1, 7)]
  expected = stateful_processes.expected_states(parts.task.train, cohorts)
  version, states = _states(whole, build())
  assert version == small_runs.ROUNDS
  assert states.keys() == expected.keys()
  assert 0 < len(states) < parts.task.train.num_clients
  counts = collections.Counter(np.concatenate(cohorts).tolist())
  assert max(counts.values()) > 1
  for client, state in states.items():
    assert state['participations'] == counts[client]
    np.testing.assert_allclose(state['total'], expected[client][0], rtol=1e-5)


@pytest.mark.parametrize(
  'algorithm',
  [
    config.Algorithm(),
    # Local layers may be kept, and nothing else under their name.
    config.Algorithm(name='fed_per', local_layers='1'),
  ],
  ids=lambda algorithm: algorithm.name,
)
def test_states_under_a_mechanism_are_refused_although_undeclared(algorithm):
  """The config says what is kept, if anything; the types say otherwise."""
  with pytest.raises(validate.UsageError, match='whose clients keep a state'):
    _parts_of(small_runs.build(algorithm=algorithm))


def test_states_are_no_metrics(whole):
  columns = small_runs.rows(whole)[0]
  assert 'unnoised_num_examples' in columns
  assert not [name for name in columns if 'state' in name]


@pytest.mark.parametrize(
  ('crash_in', 'trained'), [(2, True), (4, True), (5, False), (6, True)]
)
def test_resumed_run_equals_an_uninterrupted_one(
  whole, tmp_path, crash_in, trained
):
  with (
    small_runs.crash_in(crash_in, trained=trained),
    pytest.raises(small_runs.Crash),
  ):
    experiment.run(build(), tmp_path)
  experiment.run(build(), tmp_path)
  small_runs.assert_same(tmp_path, whole, build())
  _assert_same_states(tmp_path, whole)


def test_forgotten_states_would_be_noticed(whole, tmp_path, monkeypatch):
  small_runs.crashed(build(), tmp_path, in_round=5)
  load = client_state_log.ClientStateLog.load

  def forgetful(self, round_num):
    load(self, round_num)
    self._store.reset()
    self._store.version = round_num

  monkeypatch.setattr(client_state_log.ClientStateLog, 'load', forgetful)
  experiment.run(build(), tmp_path)
  with pytest.raises(AssertionError):
    small_runs.assert_same_rows(
      small_runs.rows(tmp_path), small_runs.rows(whole)
    )


def test_engines_write_the_same_run(whole, tmp_path):
  experiment.run(build(engine='tff_runtime'), tmp_path)
  small_runs.assert_same_rows(small_runs.rows(tmp_path), small_runs.rows(whole))
  _assert_same_states(tmp_path, whole)


_KILLED = """
import os, signal, sys, tempfile
from tests import stateful_run_test
from tff_pipeline import experiment
from tff_pipeline.algorithms import table
import tensorflow as tf

table.build = stateful_run_test.build_process
save, saves = tf.saved_model.save, []

def kill(*args, **kwargs):
  saves.append(args)
  if len(saves) == 2:
    os.kill(os.getpid(), signal.SIGKILL)
  return save(*args, **kwargs)

tf.saved_model.save = kill
experiment.run(stateful_run_test.build(), sys.argv[1])
"""


@pytest.mark.slow
def test_killed_between_states_and_server_rolls_both_back(whole, tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', _KILLED, tmp_path], capture_output=True, check=False
  )
  assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
  names = {p.name for p in (tmp_path / 'checkpoints').iterdir()}
  assert {'client_states_2.npz', 'round_2', 'client_states_4.npz'} <= names
  assert 'round_4' not in names
  experiment.run(build(), tmp_path)
  attempts = [tuple(entry[:2]) for entry in small_runs.ledger(tmp_path)]
  assert attempts[4:6] == [(3, 2), (4, 2)]
  small_runs.assert_same(tmp_path, whole, build())
  _assert_same_states(tmp_path, whole)
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert summary['status'] == 'finished'


def _assert_kill_costs_nothing(image, folder, whole):
  image.write(folder)
  experiment.run(build(), folder)
  small_runs.assert_same(folder, whole, build())
  _assert_same_states(folder, whole)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'filmed'
  with disk_images.taken_of(folder) as camera:
    experiment.run(build(), folder)
  return [*camera.images, *disk_images.torn(camera.images)]


def test_kill_at_some_boundaries_rolls_states_back_with_the_weights(
  whole, images, tmp_path
):
  about_states = [
    image
    for image in images
    if any('client_states' in name for name in image.files)
  ]
  assert len(about_states) > 20
  for image in random.Random(5).sample(about_states, 5):
    _assert_kill_costs_nothing(image, tmp_path / 'run', whole)


@pytest.mark.slow
def test_kill_at_every_boundary_rolls_states_back_with_the_weights(
  whole, images, tmp_path
):
  for image in images:
    _assert_kill_costs_nothing(image, tmp_path / 'run', whole)
