"""Runs that end early: what is on disk, what a second start makes of it."""

import contextlib
import errno
import json
import logging
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
from tff_pipeline.privacy import noise_key as noise_keys


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts(), small_runs.without_reports():
    yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """An uninterrupted run of six rounds, saved every two."""
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  experiment.run(small_runs.build(), folder)
  return folder


@pytest.fixture(scope='module')
def crashed_in_4(tmp_path_factory):
  """A run that crashed in round 4: checkpoint 2, rows to 3, ledger to 4."""
  folder = tmp_path_factory.mktemp('runs') / 'crashed'
  small_runs.crashed(small_runs.build(), folder, in_round=4)
  return folder


@pytest.fixture
def crashed(crashed_in_4, tmp_path):
  return shutil.copytree(crashed_in_4, tmp_path / 'crashed')


@pytest.fixture
def unseeded(monkeypatch):
  """A config with drawn keys: the first one, then the other one."""
  unused = list(small_runs.KEYS)
  monkeypatch.setattr(noise_keys, 'draw', lambda: unused.pop(0))
  return small_runs.build(privacy=small_runs.privacy(noise_seed=None))


def _attempts(folder):
  return [(r, attempt) for r, attempt, _ in small_runs.ledger(folder)]


def _assert_finished_like(folder, whole):
  small_runs.assert_same(folder, whole, small_runs.build())
  summary = json.loads((folder / 'summary.json').read_text())
  assert summary['status'] == experiment.FINISHED


@pytest.mark.parametrize(
  ('crash_in', 'trained'), [(1, True), (4, False), (5, True)]
)
def test_resumed_run_equals_an_uninterrupted_one(
  whole, tmp_path, crash_in, trained
):
  with (
    small_runs.crash_in(crash_in, trained=trained),
    pytest.raises(small_runs.Crash),
  ):
    experiment.run(small_runs.build(), tmp_path)
  # Write-ahead: the crashed round is in the ledger, its row is not written.
  assert _attempts(tmp_path) == [(r, 1) for r in range(1, crash_in + 1)]
  if crash_in > 1:
    assert len(small_runs.rows(tmp_path)) == crash_in - 1
  experiment.run(small_runs.build(), tmp_path)
  _assert_finished_like(tmp_path, whole)
  completed = (crash_in - 1) // 2 * 2
  assert _attempts(tmp_path) == (
    [(r, 1) for r in range(1, crash_in + 1)]
    + [(r, 2) for r in range(completed + 1, crash_in + 1)]
    + [(r, 1) for r in range(crash_in + 1, 7)]
  )
  statement = json.loads((tmp_path / 'privacy.json').read_text())
  replayed = range(completed + 1, crash_in + 1)
  assert statement['attempts_replayed'] == {str(r): 1 for r in replayed}


@pytest.mark.slow
def test_crash_after_crash_still_equals_an_uninterrupted_run(whole, tmp_path):
  for crash_in in (3, 3, 5):
    small_runs.crashed(small_runs.build(), tmp_path, in_round=crash_in)
  experiment.run(small_runs.build(), tmp_path)
  _assert_finished_like(tmp_path, whole)
  assert (3, 3) in _attempts(tmp_path)


def test_replayed_rounds_release_the_same_values_again(crashed):
  first = small_runs.rows(crashed)[2]
  shutil.rmtree(crashed / 'checkpoints')
  small_runs.crashed(small_runs.build(), crashed, in_round=4)
  again = small_runs.rows(crashed)
  assert [row['round'] for row in again] == ['1', '2', '3']
  small_runs.assert_same_rows([again[2]], [first])
  assert _attempts(crashed)[4:] == [(r, 2) for r in (1, 2, 3, 4)]


def test_stop_request_finishes_the_round_and_saves_it(whole, tmp_path, caplog):
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
  _assert_finished_like(tmp_path, whole)
  assert _attempts(tmp_path) == [(r, 1) for r in range(1, 7)]


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
  assert _attempts(tmp_path) == [(1, 1)]


@pytest.mark.slow
def test_run_in_another_thread_takes_no_signals(whole, tmp_path):
  handler = signal.getsignal(signal.SIGINT)
  done = []
  thread = threading.Thread(
    target=lambda: done.append(experiment.run(small_runs.build(), tmp_path))
  )
  thread.start()
  thread.join()
  assert done[0]['status'] == experiment.FINISHED
  assert signal.getsignal(signal.SIGINT) is handler


def test_directory_that_was_only_claimed_resumes(whole, tmp_path, monkeypatch):
  def die(*args):
    raise small_runs.Crash

  with monkeypatch.context() as patch:
    patch.setattr(noise, 'keep', die)
    with pytest.raises(small_runs.Crash):
      experiment.run(small_runs.build(), tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {'config.json', 'lock'}
  experiment.run(small_runs.build(), tmp_path)
  _assert_finished_like(tmp_path, whole)


def test_noise_key_outlives_a_death_before_the_first_round(
  tmp_path, monkeypatch, unseeded
):
  def die(*args, **kwargs):
    raise small_runs.Crash

  with monkeypatch.context() as patch:
    patch.setattr(session, 'Session', die)
    with pytest.raises(small_runs.Crash):
      experiment.run(unseeded, tmp_path)
  names = {p.name for p in tmp_path.iterdir()}
  assert names == {'config.json', 'lock', 'noise_key'}
  experiment.run(unseeded, tmp_path)
  key = noise_keys.from_text((tmp_path / 'noise_key').read_text())
  assert key == small_runs.KEYS[0]
  fingerprint = noise_keys.fingerprint(key)
  assert {entry[2] for entry in small_runs.ledger(tmp_path)} == {fingerprint}


def test_lost_noise_key_is_refused_if_a_checkpoint_needs_it(tmp_path, unseeded):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  (tmp_path / 'noise_key').unlink()
  before = small_runs.snapshot(tmp_path)
  with pytest.raises(validate.UsageError, match='--output_dir.*noise key'):
    experiment.run(unseeded, tmp_path)
  assert small_runs.snapshot(tmp_path) == before


def test_exchanged_noise_key_is_refused(tmp_path, unseeded):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  (tmp_path / 'noise_key').write_text(noise_keys.to_text(small_runs.KEYS[1]))
  before = small_runs.snapshot(tmp_path)
  with pytest.raises(validate.UsageError, match='noise key that the checkpoin'):
    experiment.run(unseeded, tmp_path)
  assert small_runs.snapshot(tmp_path) == before


@pytest.mark.parametrize('text', ['', 'not a key', '00ff'])
def test_damaged_noise_key_is_refused(crashed, unseeded, tmp_path, text):
  small_runs.crashed(unseeded, tmp_path / 'run', in_round=1)
  (tmp_path / 'run' / 'noise_key').write_text(text)
  with pytest.raises(validate.UsageError, match='--output_dir.*noise key'):
    experiment.run(unseeded, tmp_path / 'run')


def test_lost_noise_key_and_checkpoints_cost_a_second_release(
  tmp_path, unseeded
):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  (tmp_path / 'noise_key').unlink()
  shutil.rmtree(tmp_path / 'checkpoints')
  summary = experiment.run(unseeded, tmp_path)
  # Four of the six rounds were released twice, from the same cohorts.
  assert summary['privacy']['rounds_by_noise_keys'] == {'1': 2, '2': 4}
  first, second = map(noise_keys.fingerprint, small_runs.KEYS)
  assert [entry[2] for entry in small_runs.ledger(tmp_path)] == (
    [first] * 4 + [second] * 6
  )


def _edit_ledger(folder, rounds):
  path = folder / 'ledger'
  path.write_text(''.join(path.read_text().splitlines(True)[:rounds]))


def _edit_rows(folder, rounds):
  path = folder / 'metrics.csv'
  path.write_text(''.join(path.read_text().splitlines(True)[: rounds + 1]))


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda f: (f / 'ledger').unlink(), 'ledger of the 3 rounds.*found 0'),
    (lambda f: _edit_ledger(f, 1), 'ledger of the 3 rounds.*found 1'),
    # It has the rounds of the checkpoint, but not those of the table.
    (lambda f: _edit_ledger(f, 2), 'ledger of the 3 rounds.*found 2'),
    (lambda f: _edit_rows(f, 1), 'metrics.csv with the 2 rounds.*found 1'),
    (lambda f: (f / 'metrics.csv').unlink(), 'metrics.csv.*found 0 rounds'),
  ],
  ids=['no ledger', 'short', 'shorter than rows', 'few rows', 'no rows'],
)
def test_records_that_disagree_are_refused(crashed, damage, message):
  damage(crashed)
  rows = crashed / 'metrics.csv'
  before = rows.read_bytes() if rows.exists() else None
  with pytest.raises(validate.UsageError, match=f'--output_dir: .*{message}'):
    experiment.run(small_runs.build(), crashed)
  assert before == (rows.read_bytes() if rows.exists() else None)
  assert not (crashed / 'summary.json').exists()


def test_corrupt_checkpoint_falls_back_and_says_so(whole, tmp_path, caplog):
  small_runs.crashed(small_runs.build(), tmp_path, in_round=6)
  path = tmp_path / 'checkpoints' / 'round_4' / 'saved_model.pb'
  path.write_bytes(path.read_bytes()[:100])
  experiment.run(small_runs.build(), tmp_path)
  assert 'round 4 cannot be read' in caplog.text
  assert (tmp_path / 'checkpoints' / 'corrupt_4_1').is_dir()
  _assert_finished_like(tmp_path, whole)
  assert [r for r, attempt in _attempts(tmp_path) if attempt == 2] == [
    3,
    4,
    5,
    6,
  ]


def test_without_a_readable_checkpoint_it_starts_again_loudly(
  whole, crashed, caplog
):
  (crashed / 'checkpoints' / 'round_2' / 'saved_model.pb').unlink()
  experiment.run(small_runs.build(), crashed)
  assert 'starting again from round 1' in caplog.text
  _assert_finished_like(crashed, whole)


def test_max_epsilon_stops_before_it_is_exceeded_and_can_go_on(whole, tmp_path):
  fourth = float(small_runs.rows(whole)[3]['epsilon'])
  limit = fourth * (1 + 1e-9)
  for _ in range(2):  # The same command again finds nothing to do.
    summary = experiment.run(small_runs.build(), tmp_path, max_epsilon=limit)
    assert summary['status'] == experiment.AT_MAX_EPSILON
    assert summary['rounds'] == summary['privacy']['rounds'] == 4
    assert summary['privacy']['epsilon'] == pytest.approx(fourth)
    assert _attempts(tmp_path) == [(r, 1) for r in range(1, 5)]
  with pytest.raises(validate.UsageError, match='--max_epsilon: .*round 4'):
    experiment.run(small_runs.build(), tmp_path, max_epsilon=fourth * 0.999)
  experiment.run(small_runs.build(), tmp_path)
  _assert_finished_like(tmp_path, whole)


def test_max_epsilon_counts_rounds_that_will_be_released_again(
  tmp_path, unseeded
):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  price = float(small_runs.rows(tmp_path)[1]['epsilon'])
  (tmp_path / 'noise_key').unlink()
  shutil.rmtree(tmp_path / 'checkpoints')
  before = _attempts(tmp_path)
  # Enough for four rounds once, not for twice.
  with pytest.raises(validate.UsageError, match='--max_epsilon'):
    experiment.run(unseeded, tmp_path, max_epsilon=price * 1.6)
  assert _attempts(tmp_path) == before


def test_target_epsilon_is_solved_once_and_kept(whole, tmp_path, monkeypatch):
  prices = [float(row['epsilon_rdp']) for row in small_runs.rows(whole)]
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
  whole, tmp_path, place, name, call, failure, written
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
    small_runs.rows(tmp_path), small_runs.rows(whole)[:written]
  )
  assert not (tmp_path / 'summary.json').exists()
  experiment.run(small_runs.build(), tmp_path)
  _assert_finished_like(tmp_path, whole)


def test_failed_run_lets_go_of_the_lock(crashed):
  with run_directory.RunDirectory(crashed) as directory:
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
  whole, tmp_path, on_worker
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
  assert _attempts(tmp_path) == [(1, 1), (2, 1), (3, 1)]
  experiment.run(wanted, tmp_path)
  assert _attempts(tmp_path)[3:] == [(3, 2)]
  # The other engine's rows: replayed noise is the same wherever it is drawn.
  ours = [row['unnoised_train_loss'] for row in small_runs.rows(tmp_path)]
  theirs = [row['unnoised_train_loss'] for row in small_runs.rows(whole)[:3]]
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
