"""Kills at every boundary of every write, and what a second start makes of it.

A kill may cost the work since the last checkpoint, and nothing else: not a row,
not a bit of the weights, not an entry of the ledger.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests import disk_images
from tests import small_runs
from tff_pipeline import experiment
from tff_pipeline.experiment import session
from tff_pipeline.outputs import tables
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import noise_key as noise_keys
from tff_pipeline.report import writing

_ROOT = pathlib.Path(__file__).parents[1]
_PARTS = 5  # Of the slow tests: each takes some minutes.
_MOMENTS = 200
_ROUNDS = 14  # Seven checkpoints, so that old ones are deleted.
_WANTED = small_runs.build(
  rounds=_ROUNDS, privacy=small_runs.privacy(noise_seed=None)
)


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts(), pytest.MonkeyPatch.context() as patch:
    # A kill before the key is on disk draws another; here it is the same.
    patch.setattr(noise_keys, 'draw', lambda: small_runs.KEYS[0])
    yield


@pytest.fixture
def blank_pages(monkeypatch):
  """Writes pages as ever, and draws nothing on them: half of a small run."""
  monkeypatch.setattr(writing.run_contents, 'build', lambda run: run)
  monkeypatch.setattr(writing.pages, 'to_html', repr)


class _Watched:
  """A run, with the rounds that began to train, and their cohorts."""

  def __init__(self, folder, camera=None):
    self.cohorts = {}
    train = session._train

    def noted(engine, state, round_num, clients):
      assert round_num not in self.cohorts
      self.cohorts[round_num] = clients.tolist()
      if camera is not None:
        camera.note = round_num
      return train(engine, state, round_num, clients)

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(session, '_train', noted)
      self.summary = experiment.run(_WANTED, folder)


@pytest.fixture(scope='module')
def filmed(tmp_path_factory):
  """An uninterrupted run, its cohorts, and the images taken of it."""
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  with disk_images.taken_of(folder) as camera:
    camera.note = 0
    run = _Watched(folder, camera)
  return folder, run.cohorts, camera.images


def _assert_nothing_is_half_written(folder, begun):
  """Asserts what must hold at every moment, whoever looks."""
  for name in ('config.json', 'privacy.json', 'summary.json'):
    if (folder / name).exists():
      json.loads((folder / name).read_text())
  key = folder / 'noise_key'
  if key.exists():
    assert noise_keys.from_text(key.read_text()) == small_runs.KEYS[0]
    assert key.stat().st_mode & 0o777 == 0o600
  ledger = folder / 'ledger'
  started = ledgers.Ledger.read(ledger).last_round if ledger.exists() else 0
  assert started >= begun
  assert started >= tables.recorded_rounds(folder)
  if (folder / 'privacy.json').exists():
    statement = json.loads((folder / 'privacy.json').read_text())
    assert statement['rounds'] >= begun


def _assert_resumes(image, folder, whole):
  """Asserts that a kill at this moment costs nothing but time."""
  whole_folder, cohorts, _ = whole
  image.write(folder)
  _assert_nothing_is_half_written(folder, image.note)
  ledger = folder / 'ledger'
  before = ledgers.Ledger.read(ledger).entries if ledger.exists() else ()
  run = _Watched(folder)
  assert run.summary['status'] == experiment.FINISHED
  small_runs.assert_same(folder, whole_folder, _WANTED)
  assert {r: cohorts[r] for r in run.cohorts} == run.cohorts
  entries = ledgers.Ledger.read(ledger).entries
  assert entries[: len(before)] == before
  assert [e.round for e in entries[len(before) :]] == list(run.cohorts)
  left = {path.name for path in folder.rglob('*.partial')}
  if 'summary.json' in image.files:
    left.discard('report.html.partial')  # A finished run changes nothing.
  assert not left
  assert not list(folder.rglob('*_temp*'))


def _assert_all_resume(images, folder, whole):
  for image in images:
    try:
      _assert_resumes(image, folder, whole)
    except BaseException:
      print(f'killed {image.moment} in round {image.note}')
      raise


def test_one_run_has_more_than_two_hundred_moments_to_die(filmed):
  _, cohorts, images = filmed
  assert list(cohorts) == list(range(1, _ROUNDS + 1))
  torn = list(disk_images.torn(images))
  assert len(images) + len(torn) >= 200
  print(len(images), 'boundaries', len(torn), 'cut short')
  assert images[0].files == {}
  seen = ' '.join(name for image in images for name in image.files)
  for name in ('config.json.partial', 'noise_key.partial', '_temp', 'ledger'):
    assert name in seen


def test_noise_key_is_for_the_owner_alone_wherever_it_is(filmed):
  folder = filmed[0]
  key = small_runs.KEYS[0]
  forms = [
    noise_keys.to_text(key).encode(),
    bytes.fromhex(noise_keys.to_text(key)),
    *(str(part).encode() for part in key),
  ]
  holders = {
    path.relative_to(folder).parts[0]
    for path in folder.rglob('*')
    if path.is_file() and any(form in path.read_bytes() for form in forms)
  }
  assert holders == {'noise_key', 'checkpoints'}
  for name in holders:
    assert (folder / name).stat().st_mode & 0o077 == 0


def test_kill_at_some_boundaries_of_writes(filmed, blank_pages, tmp_path):
  images = filmed[2]
  chosen = random.Random(9).sample(images, 5)
  chosen += random.Random(9).sample(list(disk_images.torn(images)), 3)
  _assert_all_resume(chosen, tmp_path / 'run', filmed)


@pytest.mark.slow
@pytest.mark.parametrize('part', range(_PARTS))
def test_kill_at_every_boundary_of_every_write(
  filmed, blank_pages, tmp_path, part
):
  images = [*filmed[2], *disk_images.torn(filmed[2])]
  _assert_all_resume(images[part::_PARTS], tmp_path / 'run', filmed)


@pytest.mark.slow
def test_kill_of_a_run_that_resumes_from_a_kill(filmed, tmp_path):
  begun = [i for i in filmed[2] if i.note and 'summary.json' not in i.files]
  for image in random.Random(3).sample(begun, 3):
    folder = tmp_path / 'first'
    image.write(folder)
    with disk_images.taken_of(folder) as camera:
      camera.note = image.note
      _Watched(folder, camera)
    again = [*camera.images, *disk_images.torn(camera.images)]
    assert len(again) >= 12
    _assert_all_resume(
      random.Random(4).sample(again, 12), tmp_path / 'second', filmed
    )


_RUN_AGAIN_AND_AGAIN = """
import json, itertools, sys
from tests import experiment_crash_test as crash_test
from tests import small_runs
from tff_pipeline import experiment
from tff_pipeline.privacy import noise_key
from tff_pipeline.report import writing

folder, key = sys.argv[1], tuple(json.loads(sys.argv[2]))
noise_key.draw = lambda: key
writing.run_contents.build, writing.pages.to_html = lambda run: run, repr
with small_runs.cached_parts():
  for number in itertools.count():
    experiment.run(crash_test._WANTED, f'{folder}/{number}')
"""


def _stop(process):
  """Stops a process in all of its threads; nothing is written any more."""
  process.send_signal(signal.SIGSTOP)
  tasks = pathlib.Path(f'/proc/{process.pid}/task')
  while any(
    (task / 'stat').read_text().rpartition(')')[2].split()[0] != 'T'
    for task in tasks.iterdir()
  ):
    time.sleep(0.001)


@pytest.fixture(scope='module')
def random_moments(tmp_path_factory):
  """What `kill -9` leaves at random moments of runs in another process.

  The process is stopped, its folder copied, and it goes on: that costs a second
  less than a kill. Files that it shares with the operating system are as a kill
  would leave them, whichever library writes them.
  """
  folder = tmp_path_factory.mktemp('moments')
  moments = random.Random(5)
  key = json.dumps(small_runs.KEYS[0])
  process = psutil.Popen(
    [sys.executable, '-c', _RUN_AGAIN_AND_AGAIN, folder, key],
    cwd=_ROOT,
    env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
  )
  images = []
  try:
    while len(images) < _MOMENTS:
      time.sleep(moments.uniform(0.0, 0.1))
      assert process.poll() is None
      _stop(process)
      newest = max(folder.iterdir(), key=lambda p: int(p.name), default=None)
      if newest is not None:
        files = disk_images.read(newest)
        started = files.get('ledger', (0, b''))[1].count(b'\n')
        if not images or files != images[-1].files:
          images.append(disk_images.Image('at random', files, started))
      process.send_signal(signal.SIGCONT)
  finally:
    process.kill()
    process.wait()
  return images


@pytest.mark.slow
@pytest.mark.parametrize('part', range(_PARTS))
def test_kill_at_two_hundred_random_moments(
  filmed, random_moments, blank_pages, tmp_path, part
):
  assert len(random_moments) == _MOMENTS
  _assert_all_resume(random_moments[part::_PARTS], tmp_path / 'run', filmed)


_KILL_LOOP = """
import os, pathlib, random, signal, sys, time
from tests import small_runs
from tff_pipeline import evaluation, experiment
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.engines import engine, in_process
from tff_pipeline.outputs import saved_model, tables
from tff_pipeline.privacy import mechanisms

# No operation has run: TensorFlow has no threads that a fork would lose.
folder, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2])
moments = random.Random(int(sys.argv[3]))

def start(run):
  child = os.fork()
  if not child:
    experiment.run(small_runs.build(checkpoint_every=1), folder / str(run))
    os._exit(0)
  return child

def entries(run):
  ledger = folder / str(run) / 'ledger'
  return ledger.stat().st_size if ledger.exists() else 0

def lives_until(condition, child):
  while not condition():
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
      assert status == 0
      return False
    time.sleep(0.01)
  return True

# The first run says how long training takes on this machine, today: kills shall
# fall into all of it, and not before the end of the first round alone.
child = start(0)
lives_until(lambda: entries(0), child)
begun = time.monotonic()
lives_until(lambda: False, child)
training = time.monotonic() - begun
run, done = 1, 0
while done < kills:
  old, child = entries(run), start(run)
  delay = moments.uniform(0.5, 3.0)  # It dies while it builds and claims.
  lives = True
  if moments.random() < 0.8:  # It dies while it trains.
    lives = lives_until(lambda: entries(run) > old, child)
    delay = moments.uniform(0.0, training)
  end = time.monotonic() + delay
  if lives and lives_until(lambda: time.monotonic() > end, child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    done += 1
  if (folder / str(run) / 'summary.json').exists():
    run += 1
lives_until(lambda: False, start(run))  # The last one to its end.
print(done, 'kills', run, 'runs')
"""


@pytest.mark.slow
def test_real_kills_at_random_moments(tmp_path):
  """Twenty-five of them; real ones of processes, unlike the images."""
  wanted = small_runs.build(checkpoint_every=1)
  whole = tmp_path / 'whole'
  experiment.run(wanted, whole)
  done = subprocess.run(
    [sys.executable, '-c', _KILL_LOOP, tmp_path, '25', '1'],
    cwd=_ROOT,
    env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  print(done.stdout.splitlines()[-1])
  finished = list(tmp_path.glob('*/summary.json'))
  assert len(finished) > 2  # The last one was killed, and others may have been.
  for summary in finished:
    small_runs.assert_same(summary.parent, whole, wanted)
    ledger = ledgers.Ledger.read(summary.parent / 'ledger')
    assert ledger.last_round == small_runs.ROUNDS
