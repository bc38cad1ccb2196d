"""The ledger survives crashes, refuses damage and counts releases."""

import json
import os
import subprocess
import sys

import pytest

from tff_pipeline import validate
from tff_pipeline.privacy import ledger as ledgers

Releases = ledgers.Releases


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, *starts):
  """Writes a ledger of (round, noise key) as the runs would."""
  for round_num, key in starts:
    ledgers.Ledger.open(path, noise_key=key).append(round_num)


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'ledger'


def test_one_line_a_started_round(path):
  ledger = ledgers.Ledger.open(path, noise_key='abc')
  assert (ledger.last_round, ledger.entries) == (0, ())
  assert [ledger.append(1), ledger.append(2), ledger.append(2)] == [1, 1, 2]
  assert lines(path) == [
    {'round': 1, 'attempt': 1, 'noise_key': 'abc'},
    {'round': 2, 'attempt': 1, 'noise_key': 'abc'},
    {'round': 2, 'attempt': 2, 'noise_key': 'abc'},
  ]
  assert ledger.last_round == 2


def test_reopening_goes_on(path):
  write(path, (1, 'abc'), (2, 'abc'))
  ledger = ledgers.Ledger.open(path, noise_key='abc')
  assert (ledger.append(2), ledger.append(3)) == (2, 1)
  assert ledger.entries == ledgers.Ledger.read(path).entries
  assert ledger.replays() == {2: 1}


def test_a_line_is_synced_before_append_returns(path, monkeypatch):
  synced = []
  real = os.fsync

  def fsync(descriptor):
    synced.append(os.fstat(descriptor).st_ino)
    real(descriptor)

  monkeypatch.setattr(os, 'fsync', fsync)
  ledger = ledgers.Ledger.open(path, noise_key='abc')
  assert path.parent.stat().st_ino in synced  # The name of a new file.
  synced.clear()
  ledger.append(1)
  assert synced == [path.stat().st_ino]
  assert lines(path)[-1]['round'] == 1


def test_a_killed_process_loses_nothing(path):
  code = (
    'import os, pathlib, sys\n'
    'from tff_pipeline.privacy import ledger\n'
    'book = ledger.Ledger.open(sys.argv[1], noise_key="abc")\n'
    'book.append(1); book.append(2)\n'
    'os.kill(os.getpid(), 9)\n'
  )
  done = subprocess.run([sys.executable, '-c', code, str(path)], check=False)
  assert done.returncode == -9
  assert ledgers.Ledger.read(path).last_round == 2


def test_a_torn_last_line_never_started(path):
  write(path, (1, 'abc'), (2, 'abc'))
  whole = path.read_bytes()
  last = whole.rindex(b'\n', 0, -1) + 1
  for end in range(last, len(whole) + 1):
    path.write_bytes(whole[:end])
    # Without its end, a line that is whole otherwise counts: never too few.
    kept = 2 if end >= len(whole) - 1 else 1
    assert ledgers.Ledger.read(path).last_round == kept
    assert path.read_bytes() == whole[:end]  # Reading mends nothing.
    ledger = ledgers.Ledger.open(path, noise_key='abc')
    assert ledger.last_round == kept
    assert path.read_bytes() == (whole if kept == 2 else whole[:last])
    ledger.append(kept + 1)
    assert ledgers.Ledger.read(path).last_round == kept + 1


@pytest.mark.parametrize(
  'line, wrong',
  [
    ('{"round": 2', 'line 2 is not'),
    ('', 'line 2 is not'),
    ('[2, 1, "abc"]', 'line 2 is not'),
    ('[' * 100_000, 'line 2 is not'),
    ('{"round": 2, "attempt": 1}', 'line 2 is not'),
    ('{"round": "2", "attempt": 1, "noise_key": "abc"}', 'line 2 is not'),
    ('{"round": true, "attempt": 2, "noise_key": "abc"}', 'line 2 is not'),
    ('{"round": 2, "attempt": 1, "noise_key": ""}', 'line 2 is not'),
    ('{"round": 0, "attempt": 1, "noise_key": "abc"}', 'line 2 is not'),
    ('{"round": 2, "attempt": 1, "noise_key": 7}', 'line 2 is not'),
    ('{"round": 3, "attempt": 1, "noise_key": "abc"}', 'rounds are missing'),
    ('{"round": 2, "attempt": 2, "noise_key": "abc"}', 'after 0 attempts'),
    ('{"round": 1, "attempt": 1, "noise_key": "abc"}', 'after 1 attempts'),
    ('\udcff', 'line 2 is not'),
  ],
)
def test_damage_is_refused(path, line, wrong):
  write(path, (1, 'abc'))
  with path.open('ab') as file:
    file.write(line.encode(errors='surrogateescape') + b'\n')
  before = path.read_bytes()
  for opened in (
    lambda: ledgers.Ledger.open(path, noise_key='abc'),
    lambda: ledgers.Ledger.read(path),
  ):
    with pytest.raises(validate.UsageError, match=wrong) as error:
      opened()
    assert str(path) in str(error.value)
  assert path.read_bytes() == before


def test_a_deleted_line_is_noticed(path):
  write(path, (1, 'abc'), (2, 'abc'), (3, 'abc'))
  whole = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(whole[0] + whole[2])
  with pytest.raises(validate.UsageError, match='epsilon would be too small'):
    ledgers.Ledger.read(path)


def test_a_checkpoint_ahead_of_the_ledger_is_refused(path):
  ledger = ledgers.Ledger.open(path, noise_key='abc')
  ledger.append(1)
  before = path.read_bytes()
  for round_num in (3, 0, -1):
    with pytest.raises(validate.UsageError, match='cannot record a round'):
      ledger.append(round_num)
  assert path.read_bytes() == before
  with pytest.raises(validate.UsageError, match='ledger ends with round 1'):
    ledger.release_counts(2)


def test_replays_under_the_same_key_are_one_release(path):
  write(path, (1, 'abc'), (2, 'abc'), (2, 'abc'), (2, 'abc'), (3, 'abc'))
  ledger = ledgers.Ledger.read(path)
  assert ledger.replays() == {2: 2}
  assert ledger.release_counts(3) == Releases(3)


def test_replays_under_other_keys_are_counted(path):
  write(path, (1, 'a'), (2, 'a'), (3, 'a'), (2, 'b'), (3, 'b'), (3, 'a'))
  write(path, (3, 'c'), (4, 'c'))
  ledger = ledgers.Ledger.read(path)
  assert ledger.replays() == {2: 1, 3: 3}
  assert ledger.release_counts(4) == Releases(4, {2: 2, 3: 3})
  assert ledger.release_counts(2) == Releases(2, {2: 2})
  assert ledger.release_counts(1) == Releases(1)
  assert ledger.release_counts(0) == Releases(0)


def test_releases_by_keys():
  assert Releases(0).by_keys() == {}
  assert Releases(40).by_keys() == {1: 40}
  assert Releases(3, {1: 2, 2: 5, 3: 2}).by_keys() == {2: 2, 5: 1}


@pytest.mark.parametrize(
  'rounds, repeated', [(-1, {}), (3, {4: 2}), (3, {0: 2}), (3, {2: 1})]
)
def test_impossible_releases(rounds, repeated):
  with pytest.raises(ValueError, match='not what'):
    Releases(rounds, repeated)


def test_counts_after_resume(path):
  write(path, (1, 'a'), (2, 'a'), (3, 'a'))
  same = ledgers.Ledger.open(path, noise_key='a')
  assert same.counts_after_resume(1) == Releases(3)
  other = ledgers.Ledger.open(path, noise_key='b')
  assert other.counts_after_resume(1) == Releases(3, {2: 2, 3: 2})
  other.append(2)
  other.append(3)
  assert other.release_counts(3) == Releases(3, {2: 2, 3: 2})
  assert other.counts_after_resume(3) == Releases(3, {2: 2, 3: 2})


def test_reading_needs_a_file_and_does_not_write(path):
  with pytest.raises(validate.UsageError, match='No such file'):
    ledgers.Ledger.read(path)
  write(path, (1, 'abc'))
  with pytest.raises(ValueError, match='opened for reading'):
    ledgers.Ledger.read(path).append(2)


def test_a_noise_key_has_a_fingerprint(path):
  with pytest.raises(ValueError, match='fingerprint'):
    ledgers.Ledger.open(path, noise_key='')
  assert not path.exists()
