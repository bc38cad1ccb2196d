"""Ownership of a run directory, its lock, and atomic files."""

import json
import math
import os
import stat
import subprocess
import sys

import pytest

from tff_pipeline import validate
from tff_pipeline.outputs import run_directory

_RECORD = {'config': {'rounds': 3, 'client': {'learning_rate': 0.1}}}


def _claim(path, record=_RECORD):
  with run_directory.RunDirectory(path) as directory:
    directory.claim(record)
  return directory


def _refusal(path):
  with pytest.raises(validate.UsageError) as refused:
    run_directory.RunDirectory(path)
  message = str(refused.value)
  assert message.startswith('--output_dir: ')
  assert '\n' not in message
  return message


def test_write_text_replaces_the_whole_file(tmp_path):
  path = tmp_path / 'file'
  run_directory.write_text(path, 'a long first text')
  run_directory.write_text(path, 'é\n')
  assert path.read_bytes() == 'é\n'.encode()
  assert os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_failed_write_leaves_what_was_there(tmp_path, monkeypatch, failing):
  path = tmp_path / 'file'
  run_directory.write_text(path, 'before')

  def fail(*args):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(os, failing, fail)
    with pytest.raises(OSError, match='No space'):
      run_directory.write_text(path, 'after')
  assert path.read_text() == 'before'
  # What the failed write left behind is in nobody's way.
  run_directory.write_text(path, 'after')
  assert path.read_text() == 'after'
  assert os.listdir(tmp_path) == ['file']


def test_content_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
  calls = []
  fsync, replace = os.fsync, os.replace

  def recorded_fsync(descriptor):
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    calls.append('sync folder' if is_folder else 'sync file')
    fsync(descriptor)

  def recorded_replace(*args):
    calls.append('rename')
    replace(*args)

  monkeypatch.setattr(os, 'fsync', recorded_fsync)
  monkeypatch.setattr(os, 'replace', recorded_replace)
  run_directory.write_text(tmp_path / 'file', 'text')
  assert calls == ['sync file', 'rename', 'sync folder']


def test_secrets_are_for_the_owner_alone_from_the_start(tmp_path, monkeypatch):
  modes = []
  replace = os.replace

  def recorded(partial, path):
    modes.append(os.stat(partial).st_mode & 0o777)
    replace(partial, path)

  monkeypatch.setattr(os, 'replace', recorded)
  run_directory.write_text(tmp_path / 'key', 'secret', mode=0o600)
  assert modes == [0o600]


def test_json_is_strict_and_infinity_a_string(tmp_path):
  path = tmp_path / 'file.json'
  run_directory.write_json(path, {'a': math.inf, 'b': [1.5, {'c': math.nan}]})

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  found = json.loads(path.read_text(), parse_constant=refuse)
  assert found == {'a': 'inf', 'b': [1.5, {'c': 'nan'}]}
  assert run_directory.read_json(path) == found


def test_looking_at_a_directory_creates_nothing(tmp_path):
  with run_directory.RunDirectory(tmp_path / 'a' / 'run') as directory:
    assert directory.record is None
  assert list(tmp_path.iterdir()) == []


def test_claim_writes_the_record_and_another_process_finds_it(tmp_path):
  path = tmp_path / 'a' / 'run'
  claimed = _claim(path)
  with run_directory.RunDirectory(path) as directory:
    assert directory.record == claimed.record
    assert directory.record.pop('checksum')
    assert directory.record == {'format': run_directory.FORMAT, **_RECORD}


def test_second_claim_keeps_the_first_record(tmp_path):
  _claim(tmp_path)
  before = (tmp_path / 'config.json').read_bytes()
  _claim(tmp_path, {'config': {}, 'argv': ['another']})
  assert (tmp_path / 'config.json').read_bytes() == before


@pytest.mark.parametrize('left', ['lock', 'config.json.partial'])
def test_what_a_killed_claim_leaves_is_no_obstacle(tmp_path, left):
  (tmp_path / left).write_text('{"form')
  _claim(tmp_path)
  assert run_directory.RunDirectory(tmp_path).record['config']


def test_foreign_directory_is_refused_and_untouched(tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  assert 'thesis.txt' in _refusal(tmp_path)
  assert os.listdir(tmp_path) == ['thesis.txt']


def test_directory_that_fills_up_before_the_claim_is_refused(tmp_path):
  directory = run_directory.RunDirectory(tmp_path / 'run')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'thesis.txt').write_text('mine')
  with pytest.raises(validate.UsageError, match='thesis.txt'):
    directory.claim(_RECORD)
  assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize('found', [run_directory.FORMAT + 1, 0, None, '1'])
def test_other_format_is_refused(tmp_path, found):
  other = {'format': found, **_RECORD}
  (tmp_path / 'config.json').write_text(json.dumps(other))
  message = _refusal(tmp_path)
  assert f'format {found}' in message and 'version that wrote it' in message


def test_record_of_before_there_were_checksums_is_accepted(tmp_path):
  _claim(tmp_path)
  record = json.loads((tmp_path / 'config.json').read_text())
  del record['checksum']
  (tmp_path / 'config.json').write_text(json.dumps(record))
  assert run_directory.RunDirectory(tmp_path).record == record


@pytest.mark.parametrize(
  'text',
  [b'', b'{"format', b'[]', b'{}', b'null', b'"a"', b'\xff', b'[' * 100_000],
  ids=lambda text: repr(text[:9]),
)
def test_unreadable_record_is_refused(tmp_path, text):
  (tmp_path / 'config.json').write_bytes(text)
  assert 'unreadable config.json' in _refusal(tmp_path)


def test_places_that_cannot_be_written_are_refused(tmp_path):
  file = tmp_path / 'file'
  file.write_text('mine')
  dangling = tmp_path / 'dangling'
  dangling.symlink_to(tmp_path / 'nowhere')
  assert 'not a directory' in _refusal(file)
  assert f'{file}, which is not' in _refusal(file / 'a' / 'run')
  assert 'not a directory' in _refusal(dangling)
  assert 'too long' in _refusal(tmp_path / ('x' * 300))
  assert file.read_text() == 'mine'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_directory_without_permission_is_refused(tmp_path):
  tmp_path.chmod(0o500)
  assert 'cannot be written' in _refusal(tmp_path / 'run')
  tmp_path.chmod(0o700)


def test_permission_is_asked_for(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'access', lambda *args: False)
  assert f'{tmp_path}, which cannot be written' in _refusal(tmp_path / 'run')


def test_changed_config_names_every_leaf_that_differs(tmp_path):
  _claim(tmp_path)
  directory = run_directory.RunDirectory(tmp_path)
  directory.check_same({'rounds': 3, 'client': {'learning_rate': 0.1}})
  with pytest.raises(validate.UsageError) as refused:
    directory.check_same(
      {'rounds': 3, 'client': {'learning_rate': 0.2}, 'seed': 1}
    )
  message = str(refused.value)
  assert '--client.learning_rate was 0.1, now 0.2' in message
  assert '--seed was unset, now 1' in message
  assert '--rounds' not in message
  with pytest.raises(validate.UsageError, match='0.1, now unset'):
    directory.check_same({'rounds': 3})


def test_new_directory_has_no_config_to_differ_from(tmp_path):
  run_directory.RunDirectory(tmp_path / 'run').check_same({'rounds': 1})


_HOLD = """
import sys
from tff_pipeline.outputs import run_directory
with run_directory.RunDirectory(sys.argv[1]) as directory:
  directory.claim({'config': {}})
  print('held', flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
  """A process that holds the lock of `tmp_path`."""
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, tmp_path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.communicate()


def test_lock_is_refused_to_a_second_process_and_dies_with_the_first(
  tmp_path, holder
):
  with (
    pytest.raises(validate.UsageError, match='locked'),
    run_directory.RunDirectory(tmp_path),
  ):
    pass
  holder.kill()
  holder.wait()
  _claim(tmp_path)


def test_lock_is_refused_to_a_claim_that_lost_the_race(tmp_path, holder):
  late = run_directory.RunDirectory(tmp_path)
  late.record = None  # It looked before the other one claimed.
  with pytest.raises(validate.UsageError, match='locked'):
    late.claim(_RECORD)


def test_lock_ends_with_the_context(tmp_path):
  for _ in range(2):
    with run_directory.RunDirectory(tmp_path) as directory:
      directory.claim(_RECORD)
      with (
        pytest.raises(validate.UsageError, match='locked'),
        run_directory.RunDirectory(tmp_path),
      ):
        pass
