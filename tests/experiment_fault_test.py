"""Machines that misbehave while a run is under way: disks, clocks, people."""

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import partition
from tff_pipeline.experiment import session
from tff_pipeline.privacy import ledger as ledgers

pytestmark = pytest.mark.usefixtures('without_reports')


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts():
    yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  experiment.run(small_runs.build(), folder)
  return folder


@contextlib.contextmanager
def _in_round(round_num, deed):
  """Does something to the machine while a round trains."""
  train = session._train

  def noted(engine, state, current, clients):
    if current == round_num:
      deed()
    return train(engine, state, current, clients)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(session, '_train', noted)
    yield


def _deleted(folder):
  shutil.rmtree(folder)


def _moved_and_begun_anew(folder):
  folder.rename(folder.with_name('moved'))
  folder.mkdir()
  ledgers.Ledger.open(folder / 'ledger', noise_key='other').append(1)
  (folder / 'checkpoints').mkdir()
  (folder / 'tensorboard').mkdir()


def _ledger_deleted(folder):
  (folder / 'ledger').unlink()


def _ledger_copied(folder):
  """As an editor does that saves a file."""
  shutil.copy(folder / 'ledger', folder / 'copy')
  os.replace(folder / 'copy', folder / 'ledger')


def _ledger_written(folder):
  ledgers.Ledger.open(folder / 'ledger', noise_key='other').append(3)


@pytest.mark.parametrize(
  ('deed', 'reason'),
  [
    (_deleted, 'No such file'),
    (_moved_and_begun_anew, 'ledger was replaced'),
    (_ledger_deleted, 'No such file.*ledger'),
    (_ledger_copied, 'ledger was replaced'),
    (_ledger_written, 'written to by somebody else'),
  ],
)
def test_directory_that_changes_hands_ends_the_run(tmp_path, deed, reason):
  folder = tmp_path / 'run'
  with (
    _in_round(3, lambda: deed(folder)),
    pytest.raises(experiment.Failed, match=reason),
  ):
    experiment.run(small_runs.build(checkpoint_every=100), folder)
  if deed is _moved_and_begun_anew:
    # Not a line of ours is in the other run's ledger, nor a row.
    ledger = ledgers.Ledger.read(folder / 'ledger')
    assert [e.noise_key for e in ledger.entries] == ['other']


def test_clock_that_runs_backwards_changes_nothing(
  whole, tmp_path, monkeypatch
):
  now = [time.time()]

  def backwards():
    now[0] -= 86_400.0
    return now[0]

  monkeypatch.setattr(time, 'time', backwards)
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_same(tmp_path, whole, small_runs.build())
  with open(tmp_path / 'metrics.csv', encoding='utf-8') as file:
    seconds = [float(row['round_seconds']) for row in csv.DictReader(file)]
  assert all(0 < s < 60 for s in seconds)


def test_one_enormous_client_among_empty_ones_is_a_run(tmp_path, monkeypatch):
  """Two hundred times as large as the next."""
  deal = partition.deal

  def lopsided(examples, *, task, seed):
    dealt = deal(examples, task=task, seed=seed)
    sizes = np.array([0] * 40 + [5] * 19 + [len(dealt.examples.x) - 95])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return client_data.ClientData(dealt.examples, offsets)

  monkeypatch.setattr(partition, 'deal', lopsided)
  wanted = small_runs.build(cohort=config.poisson(30))
  summary = experiment.run(wanted, tmp_path)
  assert summary['status'] == experiment.FINISHED
  rows = small_runs.rows(tmp_path)
  used = [float(row['unnoised_train_num_examples']) for row in rows]
  assert max(used) > 1000 > 200 > min(used)
  assert all(np.isfinite(w).all() for w in small_runs.weights(tmp_path))
  assert all(float(row['unnoised_train_rejected_updates']) == 0 for row in rows)


def test_results_of_an_earlier_end_go_when_more_is_released(whole, tmp_path):
  limit = float(small_runs.rows(whole)[3]['epsilon']) * (1 + 1e-9)
  experiment.run(small_runs.build(), tmp_path, max_epsilon=limit)
  assert (tmp_path / 'privacy.json').exists()
  stopped = len(small_runs.rows(tmp_path))
  assert stopped == 4
  small_runs.crashed(small_runs.build(), tmp_path, in_round=stopped + 1)
  # They would tell the price of fewer rounds than were released.
  assert not (tmp_path / 'privacy.json').exists()
  assert not (tmp_path / 'summary.json').exists()
  experiment.run(small_runs.build(), tmp_path)
  small_runs.assert_same(tmp_path, whole, small_runs.build())


def test_row_with_a_lowered_epsilon_is_refused(tmp_path):
  small_runs.crashed(small_runs.build(), tmp_path, in_round=6)
  path = tmp_path / 'metrics.csv'
  price = small_runs.rows(tmp_path)[3]['epsilon_rdp']
  text = path.read_text()
  for lower in (price.replace(price[0], '0', 1), str(float(price) - 1e-6)):
    path.write_text(text.replace(price, lower))
    with pytest.raises(validate.UsageError, match='epsilon_rdp in metrics.csv'):
      experiment.run(small_runs.build(), tmp_path)
  path.write_text(text)
  experiment.run(small_runs.build(), tmp_path)


_ON_TMPFS = """
set -e
mount -t tmpfs -o size=$1k none "$2"
shift 2
status=0; "$@" || status=$?
echo "status $status"
"""

_FLAGS = (
  '--experiment=quickstart',
  '--task.model=softmax_regression',
  '--cohort.clients_per_round=6',
  '--privacy.noise_seed=3',
  '--checkpoint_every=1',
  '--rounds=3',
)


def _can_mount():
  done = subprocess.run(
    ['unshare', '-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt'],
    capture_output=True,
    check=False,
  )
  return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(
  shutil.which('unshare') is None or not _can_mount(),
  reason='mounts need namespaces',
)
def test_real_disks_that_are_full_or_read_only(tmp_path):
  """Each size fills up at another write: claim, row, checkpoint, page."""
  command = [sys.executable, '-m', 'experiments.train', *_FLAGS]
  command.append(f'--output_dir={tmp_path}/run')
  messages = []
  for size in (4, 16, 96, 224, 320):
    done = subprocess.run(
      ['unshare', '-rm', 'sh', '-c', _ON_TMPFS, 'sh', str(size), tmp_path]
      + command,
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
    )
    messages.append(done.stderr.strip().splitlines()[-1])
    assert 'Traceback' not in done.stderr, done.stderr
    if 'status 0' in done.stdout:  # Room for everything but the page.
      assert 'No report was written' in messages[-1]
      continue
    assert 'status 1' in done.stdout or 'status 2' in done.stdout, done.stderr
    assert messages[-1].startswith('error: ')
  full = [m for m in messages if m.startswith('error: ') and 'space left' in m]
  assert len(full) >= 2, messages
  read_only = 'mount -t tmpfs -o ro none "$2"'
  script = _ON_TMPFS.replace('mount -t tmpfs -o size=$1k none "$2"', read_only)
  done = subprocess.run(
    ['unshare', '-rm', 'sh', '-c', script, 'sh', '0', tmp_path, *command],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert 'status 2' in done.stdout
  assert 'cannot be written to' in done.stderr
  assert len(done.stderr.splitlines()) == 1
