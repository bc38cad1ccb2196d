"""Runs that end early: what is on disk, what a second start makes of it."""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import signal
import threading

import psutil
import pytest
import tensorflow as tf

from tests import small_runs
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.engines import tff_runtime
from tff_pipeline.experiment import noise
from tff_pipeline.experiment import session
from tff_pipeline.outputs import run_directory
from tff_pipeline.outputs import tables
from tff_pipeline.privacy import calibration


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts(), small_runs.without_reports():
    yield


@pytest.mark.parametrize(
  ('crash_in', 'trained'), [(1, True), (4, False), (5, True)]
)
def test_resumed_run_equals_an_uninterrupted_one(
  whole_run, tmp_path, crash_in, trained
):
  with (
    small_runs.crash_in(crash_in, trained=trained),
    pytest.raises(small_runs.Crash),
  ):
    experiment.run(small_runs.build(), tmp_path)
  # Write-ahead: the crashed round is in the ledger, its row is not written.
  assert small_runs.attempts(tmp_path) == [
    (r, 1) for r in range(1, crash_in + 1)
  ]
  if crash_in > 1:
    assert len(small_runs.rows(tmp_path)) == crash_in - 1
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_finished_like(tmp_path, whole_run)
  completed = (crash_in - 1) // 2 * 2
  assert small_runs.attempts(tmp_path) == (
    [(r, 1) for r in range(1, crash_in + 1)]
    + [(r, 2) for r in range(completed + 1, crash_in + 1)]
    + [(r, 1) for r in range(crash_in + 1, 7)]
  )
  statement = json.loads((tmp_path / 'privacy.json').read_text())
  replayed = range(completed + 1, crash_in + 1)
  assert statement['attempts_replayed'] == {str(r): 1 for r in replayed}


@pytest.mark.slow
def test_crash_after_crash_still_equals_an_uninterrupted_run(
  whole_run, tmp_path
):
  for crash_in in (3, 3, 5):
    small_runs.crashed(small_runs.build(), tmp_path, in_round=crash_in)
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_finished_like(tmp_path, whole_run)
  assert (3, 3) in small_runs.attempts(tmp_path)


def test_replayed_rounds_release_the_same_values_again(crashed_run):
  first = small_runs.rows(crashed_run)[2]
  shutil.rmtree(crashed_run / 'checkpoints')
  small_runs.crashed(small_runs.build(), crashed_run, in_round=4)
  again = small_runs.rows(crashed_run)
  assert [row['round'] for row in again] == ['1', '2', '3']
  small_runs.assert_same_rows([again[2]], [first])
  assert small_runs.attempts(crashed_run)[4:] == [(r, 2) for r in (1, 2, 3, 4)]


def test_stop_request_finishes_the_round_and_saves_it(
  whole_run, tmp_path, caplog
):
  caplog.set_level(logging.INFO, logger='tff_pipeline')
  train = session._train
  handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]

  def interrupted(engine, state, round_num, clients):
    if round_num == 3:
      os.kill(os.getpid(), signal.SIGINT)
    return train(engine, state, round_num, clients)

  with (
    pytest.MonkeyPatch.context() as patch,
    pytest.raises(experiment.Interrupted) as stopped,
  ):
    patch.setattr(session, '_train', interrupted)
    experiment.run(small_runs.build(), tmp_path)
  assert 'stopped after round 3 of 6' in str(stopped.value)
  assert 'same command again' in str(stopped.value)
  assert 'SIGINT: finishing this round' in caplog.text
  assert handlers == [
    signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)
  ]
  assert len(small_runs.rows(tmp_path)) == 3
  assert (tmp_path / 'checkpoints' / 'round_3').is_dir()
  experiment.run(small_runs.build(), tmp_path)
  assert 'Continuing after round 3' in caplog.text
  small_runs.assert_finished_like(tmp_path, whole_run)
  assert small_runs.attempts(tmp_path) == [(r, 1) for r in range(1, 7)]


@pytest.fixture(
  params=[signal.default_int_handler, signal.SIG_IGN],
  ids=['default', 'ignored'],
)
def handler_of_sigint(request):
  """A shell lets the jobs in its background ignore SIGINT."""
  before = signal.signal(signal.SIGINT, request.param)
  yield request.param
  signal.signal(signal.SIGINT, before)


def test_second_signal_ends_at_once(tmp_path, handler_of_sigint):
  def interrupted(engine, state, round_num, clients):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

  with (
    pytest.MonkeyPatch.context() as patch,
    pytest.raises(KeyboardInterrupt),
  ):
    patch.setattr(session, '_train', interrupted)
    experiment.run(small_runs.build(), tmp_path)
  assert signal.getsignal(signal.SIGINT) is handler_of_sigint
  assert small_runs.attempts(tmp_path) == [(1, 1)]


@pytest.mark.slow
def test_run_in_another_thread_takes_no_signals(whole_run, tmp_path):
  handler = signal.getsignal(signal.SIGINT)
  done = []
  thread = threading.Thread(
    target=lambda: done.append(experiment.run(small_runs.build(), tmp_path))
  )
  thread.start()
  thread.join()
  assert done[0]['status'] == experiment.FINISHED
  assert signal.getsignal(signal.SIGINT) is handler


def test_directory_that_was_only_claimed_resumes(
  whole_run, tmp_path, monkeypatch
):
  def die(*args):
    raise small_runs.Crash

  with monkeypatch.context() as patch:
    patch.setattr(noise, 'keep', die)
    with pytest.raises(small_runs.Crash):
      experiment.run(small_runs.build(), tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {'config.json', 'lock'}
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_finished_like(tmp_path, whole_run)


def test_max_epsilon_stops_before_it_is_exceeded_and_can_go_on(
  whole_run, tmp_path
):
  fourth = float(small_runs.rows(whole_run)[3]['epsilon'])
  limit = fourth * (1 + 1e-9)
  for _ in range(2):  # The same command again finds nothing to do.
    summary = experiment.run(small_runs.build(), tmp_path, max_epsilon=limit)
    assert summary['status'] == experiment.AT_MAX_EPSILON
    assert summary['rounds'] == summary['privacy']['rounds'] == 4
    assert summary['privacy']['epsilon'] == pytest.approx(fourth)
    assert small_runs.attempts(tmp_path) == [(r, 1) for r in range(1, 5)]
  with pytest.raises(validate.UsageError, match='--max_epsilon: .*round 4'):
    experiment.run(small_runs.build(), tmp_path, max_epsilon=fourth * 0.999)
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_finished_like(tmp_path, whole_run)


def _noiseless():
  return small_runs.build(privacy=small_runs.privacy(noise_multiplier=0.0))


def test_stop_at_accuracy_ends_at_the_first_round_that_has_it(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  experiment.run(_noiseless(), whole)
  evaluated = {
    int(row['round']): float(row['test_accuracy'])
    for row in small_runs.rows(whole)
    if row['test_accuracy'] != 'nan'
  }
  wanted = sorted(evaluated.values())[-2]
  first = next(r for r, accuracy in evaluated.items() if accuracy >= wanted)
  assert first < max(evaluated)
  for _ in range(2):  # The same command again finds nothing to do.
    summary = experiment.run(_noiseless(), cut, stop_at_accuracy=wanted)
    assert summary['status'] == experiment.AT_ACCURACY
    assert summary['rounds'] == summary['privacy']['rounds'] == first
    assert small_runs.attempts(cut) == [(r, 1) for r in range(1, first + 1)]
  experiment.run(_noiseless(), cut)
  small_runs.assert_finished_like(cut, whole)


def test_stop_at_accuracy_counts_what_has_started(tmp_path):
  """A round that started before may have been released."""
  small_runs.crashed(_noiseless(), tmp_path, in_round=5)
  summary = experiment.run(_noiseless(), tmp_path, stop_at_accuracy=1e-6)
  assert summary['status'] == experiment.AT_ACCURACY
  assert summary['rounds'] == summary['privacy']['rounds'] == 5


@pytest.mark.parametrize('accuracy', [0.0, 1.5, math.nan])
def test_stop_at_accuracy_is_a_share(tmp_path, accuracy):
  with pytest.raises(validate.UsageError, match='^--stop_at_accuracy'):
    experiment.run(_noiseless(), tmp_path / 'run', stop_at_accuracy=accuracy)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'leaves',
  [
    {},
    {'noise_multiplier': None, 'target_epsilon': 2.0},
    {
      'mechanism': 'dp_sgd',
      'noise_multiplier': 1.0,
    },
  ],
)
def test_what_was_released_does_not_decide_when_a_private_run_stops(
  tmp_path, leaves
):
  private = small_runs.build(privacy=small_runs.privacy(**leaves))
  with pytest.raises(
    validate.UsageError, match='^--stop_at_accuracy: expected no value'
  ):
    experiment.run(private, tmp_path / 'run', stop_at_accuracy=0.5)
  assert not (tmp_path / 'run').exists()


def test_target_epsilon_is_solved_once_and_kept(
  whole_run, tmp_path, monkeypatch
):
  prices = [float(row['epsilon_rdp']) for row in small_runs.rows(whole_run)]
  target = small_runs.build(
    privacy=small_runs.privacy(target_epsilon=prices[3], solve_for='rounds'),
    rounds=None,
  )
  small_runs.crashed(target, tmp_path, in_round=3)
  solved = json.loads((tmp_path / 'config.json').read_text())['solved']
  assert solved['leaf'] == 'rounds'
  assert solved['value'] >= 4  # The headline is at most the price by RDP.

  def refuse(*args, **kwargs):
    pytest.fail('solved again')

  monkeypatch.setattr(calibration, 'solve', refuse)
  summary = experiment.run(target, tmp_path)
  assert summary['status'] == experiment.FINISHED
  assert summary['rounds'] == solved['value']
  assert summary['privacy']['epsilon'] <= prices[3]
  assert summary['privacy']['solved'] == solved
  assert experiment.run(target, tmp_path) == summary


def _fails_at_call(number, original, failure):
  calls = []

  def call(*args, **kwargs):
    calls.append(args)
    if len(calls) == number:
      raise failure
    return original(*args, **kwargs)

  return call


_FULL = OSError(errno.ENOSPC, 'No space left on device', 'metrics.csv')
_FULL_OF_TENSORFLOW = tf.errors.ResourceExhaustedError(
  None, None, 'No space left on device'
)


@pytest.mark.parametrize(
  ('place', 'name', 'call', 'failure', 'written'),
  [
    (tables.Tables, 'write', 4, _FULL, 3),
    (tf.saved_model, 'save', 2, _FULL_OF_TENSORFLOW, 4),
    (tf.keras.models, 'save_model', 1, _FULL_OF_TENSORFLOW, 6),
  ],
  ids=['row', 'checkpoint', 'model'],
)
def test_full_disk_loses_nothing_that_was_written(
  whole_run, tmp_path, place, name, call, failure, written
):
  with (
    pytest.MonkeyPatch.context() as patch,
    pytest.raises(experiment.Failed) as failed,
  ):
    original = getattr(place, name)
    patch.setattr(place, name, _fails_at_call(call, original, failure))
    experiment.run(small_runs.build(), tmp_path)
  message = str(failed.value)
  assert 'No space left on device' in message
  assert f'What was saved in {tmp_path} is safe' in message
  assert 'run the same command again' in message
  small_runs.assert_same_rows(
    small_runs.rows(tmp_path), small_runs.rows(whole_run)[:written]
  )
  assert not (tmp_path / 'summary.json').exists()
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_finished_like(tmp_path, whole_run)


def test_failed_run_lets_go_of_the_lock(crashed_run):
  with run_directory.RunDirectory(crashed_run) as directory:
    assert directory.record is not None


@pytest.fixture
def on_worker():
  """The small experiment on TFF's runtime, and the workers it starts."""
  before = set(psutil.Process().children(recursive=True))

  def started():
    family = set(psutil.Process().children(recursive=True)) - before
    return [p for p in family if p.name() == 'worker_binary']

  yield small_runs.build(engine='tff_runtime', rounds=3), started
  assert started() == []


@contextlib.contextmanager
def _within(seconds):
  """Fails instead of hanging."""

  def fail(number, frame):
    pytest.fail(f'still hanging after {seconds} s')

  before = signal.signal(signal.SIGALRM, fail)
  signal.alarm(seconds)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_worker_that_dies_fails_the_run_and_it_resumes(
  whole_run, tmp_path, on_worker
):
  wanted, workers = on_worker
  train = tff_runtime.TffRuntime.round

  def killed(self, state, *, round_num, clients):
    if round_num == 3:
      [worker] = workers()
      worker.kill()  # TFF alone would wait for it forever.
    return train(self, state, round_num=round_num, clients=clients)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tff_runtime.TffRuntime, 'round', killed)
    with (
      _within(60),
      pytest.raises(experiment.Failed, match='TFF worker.*status -9.*again'),
    ):
      experiment.run(wanted, tmp_path)
  assert small_runs.attempts(tmp_path) == [(1, 1), (2, 1), (3, 1)]
  experiment.run(wanted, tmp_path)
  assert small_runs.attempts(tmp_path)[3:] == [(3, 2)]
  # The other engine's rows: replayed noise is the same wherever it is drawn.
  ours = [row['unnoised_train_loss'] for row in small_runs.rows(tmp_path)]
  theirs = [
    row['unnoised_train_loss'] for row in small_runs.rows(whole_run)[:3]
  ]
  assert list(map(float, ours)) == pytest.approx(
    list(map(float, theirs)), rel=1e-4
  )


def test_exception_in_a_round_ends_the_worker(tmp_path, on_worker):
  wanted, workers = on_worker
  seen = []

  def broken(*args):
    seen.extend(workers())
    raise small_runs.Crash

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session, '_train', broken)
    with pytest.raises(small_runs.Crash):
      experiment.run(wanted, tmp_path)
  assert len(seen) == 1
  assert not seen[0].is_running()
