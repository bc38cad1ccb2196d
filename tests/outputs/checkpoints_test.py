"""Server states on disk: what comes back, and what a damaged one does."""

import collections
import os
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tff_pipeline.outputs import checkpoints

_Query = collections.namedtuple('_Query', ['key', 'num_releases'])


def _state(round_num):
  return collections.OrderedDict(
    weights=[
      np.full((40, 30), round_num / 3, np.float32),
      np.arange(7, dtype=np.float32) * round_num,
    ],
    aggregator=(
      _Query(np.array([2**62 + round_num, -5], np.int64), np.int64(round_num)),
    ),
    empty=(),
  )


_STRUCTURE = _state(0)


def _open(folder, warn=None):
  return checkpoints.Checkpoints(folder, warn=warn or pytest.fail)


def _assert_is(state, round_num):
  wanted = _state(round_num)
  tf.nest.assert_same_structure(state, wanted)  # Containers too.
  for a, b in zip(tf.nest.flatten(state), tf.nest.flatten(wanted), strict=True):
    assert np.asarray(a).dtype == np.asarray(b).dtype
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  folder = tmp_path_factory.mktemp('original')
  store = _open(folder)
  for round_num in (2, 4, 6):
    store.save(_state(round_num), round_num)
  return folder


@pytest.fixture
def folder(original, tmp_path):
  """A folder with the checkpoints of rounds 2, 4 and 6."""
  return shutil.copytree(original, tmp_path / 'checkpoints')


def test_new_store_gives_the_initial_state(tmp_path):
  state, completed = _open(tmp_path / 'checkpoints').restore(_STRUCTURE)
  assert completed == 0
  assert state is _STRUCTURE


def test_newest_state_comes_back_exactly(folder):
  state, completed = _open(folder).restore(_STRUCTURE)
  assert completed == 6
  _assert_is(state, 6)


def test_rounds_are_in_the_order_of_numbers(folder):
  store = _open(folder)
  store.save(_state(10), 10)
  assert store.rounds() == [4, 6, 10]  # Only the last three are kept.
  assert store.restore(_STRUCTURE)[1] == 10


def test_half_written_checkpoint_does_not_count_and_is_removed(folder):
  partial = folder / 'round_8_temp1234'
  partial.mkdir()
  (partial / 'saved_model.pb').write_bytes(b'half')
  assert _open(folder).restore(_STRUCTURE)[1] == 6
  assert not partial.exists()


def test_checkpoint_is_synced_with_its_name(folder, monkeypatch):
  synced = []
  fsync = os.fsync

  def recorded(descriptor):
    synced.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    fsync(descriptor)

  monkeypatch.setattr(os, 'fsync', recorded)
  _open(folder).save(_state(8), 8)
  files = [p for p in (folder / 'round_8').rglob('*') if p.is_file()]
  assert len(files) > 2
  assert {os.fspath(p) for p in files} <= set(synced)
  assert synced[-1] == os.fspath(folder)


def _truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garble(path):
  content = path.read_bytes()
  path.write_bytes(random.Random(0).randbytes(len(content)))


def _empty(path):
  path.write_bytes(b'')


_NEEDED = [
  'saved_model.pb',
  'variables/variables.index',
  'variables/variables.data-00000-of-00001',
]


@pytest.mark.parametrize('damage', [_truncate, _garble, _empty, os.remove])
@pytest.mark.parametrize('name', _NEEDED)
def test_damaged_checkpoint_is_kept_aside_and_the_one_before_it_used(
  folder, damage, name
):
  damage(folder / 'round_6' / name)
  damaged = {
    p.name: p.read_bytes()
    for p in (folder / 'round_6').rglob('*')
    if p.is_file()
  }
  warnings = []
  state, completed = _open(folder, warnings.append).restore(_STRUCTURE)
  assert completed == 4
  _assert_is(state, 4)
  [warning] = warnings
  assert 'round 6 cannot be read' in warning
  assert '\n' not in warning
  aside = folder / 'corrupt_6_1'
  assert os.fspath(aside) in warning
  kept = {p.name: p.read_bytes() for p in aside.rglob('*') if p.is_file()}
  assert kept == damaged


def test_one_flipped_bit_in_a_value_is_noticed(folder):
  path = folder / 'round_6' / _NEEDED[2]
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  assert _open(folder, lambda warning: None).restore(_STRUCTURE)[1] == 4


def test_round_can_be_saved_again_after_its_checkpoint_was_damaged(folder):
  for number in (1, 2):
    _garble(folder / 'round_6' / 'saved_model.pb')
    store = _open(folder, lambda warning: None)
    store.restore(_STRUCTURE)
    assert (folder / f'corrupt_6_{number}').is_dir()
    store.save(_state(6), 6)
    _assert_is(store.restore(_STRUCTURE)[0], 6)


def test_all_damaged_starts_again_loudly(folder):
  for path in folder.glob('round_*/saved_model.pb'):
    _truncate(path)
  warnings = []
  state, completed = _open(folder, warnings.append).restore(_STRUCTURE)
  assert completed == 0
  assert state is _STRUCTURE
  assert len(warnings) == 4
  assert warnings[-1] == (
    'No checkpoint can be read: starting again from round 1.'
  )
  assert len(list(folder.glob('corrupt_*'))) == 3


@pytest.mark.parametrize(
  'change',
  [
    {'weights': [np.zeros((40, 31), np.float32), np.zeros(7, np.float32)]},
    {'weights': [np.zeros((40, 30), np.float64), np.zeros(7, np.float32)]},
    {'weights': [np.zeros((40, 30), np.float32)]},
    {'empty': (np.float32(0),)},
  ],
  ids=['shape', 'type', 'fewer', 'more'],
)
def test_state_of_another_process_is_not_taken(folder, change):
  structure = _state(0) | change
  warnings = []
  _, completed = _open(folder, warnings.append).restore(structure)
  assert completed == 0
  assert len(warnings) == 4


def test_save_that_fails_is_an_os_error_and_earlier_states_are_safe(
  folder, monkeypatch
):
  store = _open(folder)

  def full_disk(*args, **kwargs):
    raise tf.errors.ResourceExhaustedError(None, None, 'No space left')

  with monkeypatch.context() as patch:
    patch.setattr(tf.saved_model, 'save', full_disk)
    with pytest.raises(OSError, match='round_8: No space left'):
      store.save(_state(8), 8)
  state, completed = _open(folder).restore(_STRUCTURE)
  assert completed == 6
  _assert_is(state, 6)
