"""Long runs: nothing grows that should not, and resuming stays quick."""

import statistics
import time

import psutil
import pytest

from tests import small_runs
from tff_pipeline import experiment
from tff_pipeline.experiment import session


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts():
    yield


class _Gauges:
  """What a process holds, and the processor time of its rounds.

  Others on a busy machine do not count.
  """

  def __init__(self):
    self.at = {}
    self.seconds = []
    self._last = time.process_time()

  def read(self, round_num):
    now = time.process_time()
    self.seconds.append(now - self._last)
    self._last = now
    process = psutil.Process()
    self.at[round_num] = {
      'megabytes': process.memory_info().rss / 2**20,
      'files': process.num_fds(),
      'threads': process.num_threads(),
    }


def _run_until(folder, wanted, *, crash_in, monkeypatch):
  """Runs, crashes, and returns the gauges."""
  gauges = _Gauges()
  train = session._train

  def noted(engine, state, round_num, clients):
    gauges.read(round_num)
    if round_num == crash_in:
      raise small_runs.Crash
    return train(engine, state, round_num, clients)

  with monkeypatch.context() as patch:
    patch.setattr(session, '_train', noted)
    with pytest.raises(small_runs.Crash):
      experiment.run(wanted, folder)
  return gauges


def _assert_flat(gauges, *, warm, last, megabytes):
  """Asserts that nothing grew between two rounds."""
  before, after = gauges.at[warm], gauges.at[last]
  assert after['files'] <= before['files'] + 2, (before, after)
  assert after['threads'] <= before['threads'] + 2, (before, after)
  assert after['megabytes'] <= before['megabytes'] + megabytes, (before, after)
  part = (last - warm) // 4
  early = statistics.median(gauges.seconds[warm : warm + part])
  late = statistics.median(gauges.seconds[-part:])
  assert late < 2.0 * early, (early, late)


def _size(path):
  return sum(p.stat().st_size for p in path.rglob('*') if p.is_file())


def test_a_hundred_rounds_hold_what_twenty_do(tmp_path, monkeypatch):
  wanted = small_runs.build(rounds=120, evaluate_every=40, checkpoint_every=40)
  gauges = _run_until(tmp_path, wanted, crash_in=120, monkeypatch=monkeypatch)
  _assert_flat(gauges, warm=45, last=119, megabytes=40)


@pytest.mark.slow
def test_five_thousand_rounds(tmp_path, monkeypatch):
  wanted = small_runs.build(
    rounds=5000, evaluate_every=500, checkpoint_every=100
  )
  gauges = _run_until(tmp_path, wanted, crash_in=4990, monkeypatch=monkeypatch)
  _assert_flat(gauges, warm=500, last=4989, megabytes=200)
  assert _size(tmp_path / 'tensorboard') < 10 * 2**20
  assert (tmp_path / 'metrics.csv').stat().st_size < 2 * 2**20
  assert (tmp_path / 'ledger').stat().st_size < 2**20
  assert _size(tmp_path / 'checkpoints') < 2**20
  started = time.perf_counter()
  summary = experiment.run(wanted, tmp_path)
  assert time.perf_counter() - started < 30.0  # 4,900 rows and 100 rounds.
  assert summary['rounds'] == 5000
  assert summary['privacy']['attempts_replayed'].keys() == {
    str(r) for r in range(4901, 4991)
  }
