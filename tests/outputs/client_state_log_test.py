"""States of clients on disk, together with the server's checkpoint."""

import collections
import os
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.engines import client_store
from tff_pipeline.engines import state_channel
from tff_pipeline.outputs import checkpoints
from tff_pipeline.outputs import client_state_log

_SIZE = 50
_SERVER = {'weights': np.zeros(3, np.float32)}
_ROUNDS = 24
_EVERY = 2


def _channel():
  state = collections.OrderedDict(
    vector=tf.TensorSpec([_SIZE], tf.float32),
    count=tf.TensorSpec([], tf.int64),
    flag=tf.TensorSpec([2, 1], tf.bool),
  )
  return state_channel.Channel(
    state_type=tff.types.tensorflow_to_type(state), path=('client_states',)
  )


def _store():
  return client_store.Store(_channel())


def _cohort(round_num):
  """A few of 100,000 clients, some again and again; every fourth nobody."""
  rng = np.random.default_rng(round_num)
  if round_num % 4 == 0:
    return np.zeros(0, np.int64)
  return np.unique(rng.choice(20, 5) * 5_000 + rng.choice([0, 1], 5))


def _advance(store):
  """One round, whose states depend on those before it."""
  clients = _cohort(store.version + 1)
  vector, count, flag = store.rows(clients)
  rng = np.random.default_rng(store.version)
  leaves = (
    0.5 * vector + rng.normal(size=vector.shape).astype(np.float32),
    count + 1,
    ~flag,
  )
  store.update(state_channel.Rows(clients, leaves), store.version + 1)


def _server(round_num):
  return {'weights': np.full(3, round_num, np.float32)}


def _open(folder, warn=None):
  store = _store()
  opened = checkpoints.Checkpoints(
    folder, warn=warn or pytest.fail, store=store
  )
  return opened, store


def _save(opened, store):
  opened.save(_server(store.version), store.version)


def _contents(store):
  return {
    client: [leaf.tobytes() for leaf in store.leaves(client)]
    for client in store.clients
  }


def _states_after(round_num):
  store = _store()
  for _ in range(round_num):
    _advance(store)
  return _contents(store)


def _run(folder, last, warn=None):
  """Continues to a round, saving every `_EVERY` rounds."""
  opened, store = _open(folder, warn)
  _, completed = opened.restore(_SERVER)
  assert store.version == completed
  while store.version < last:
    _advance(store)
    if store.version % _EVERY == 0:
      _save(opened, store)
  return opened, store


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  folder = tmp_path_factory.mktemp('original')
  _run(folder, _ROUNDS)
  return folder


@pytest.fixture
def folder(original, tmp_path):
  return shutil.copytree(original, tmp_path / 'checkpoints')


def _files(folder):
  return sorted(
    (p.name for p in folder.glob('client_states_*')),
    key=lambda name: int(name.split('_')[-1].split('.')[0]),
  )


def _assert_restores(folder, round_num, warn=None):
  opened, store = _open(folder, warn)
  state, completed = opened.restore(_SERVER)
  assert completed == store.version == round_num
  np.testing.assert_array_equal(state['weights'], _server(round_num)['weights'])
  assert _contents(store) == _states_after(round_num)
  assert store.changed == set()


def test_states_come_back_with_their_server(folder):
  _assert_restores(folder, _ROUNDS)


def test_new_folder_gives_nobody(tmp_path):
  opened, store = _open(tmp_path)
  assert opened.restore(_SERVER)[1] == 0
  assert (store.version, store.clients) == (0, [])


@pytest.mark.parametrize('last', range(_EVERY, _ROUNDS, 2 * _EVERY))
def test_resumed_states_equal_uninterrupted_ones(tmp_path, original, last):
  opened, store = _run(tmp_path, last)
  _advance(store)  # A round that is lost.
  _, store = _run(tmp_path, _ROUNDS)
  assert _contents(store) == _states_after(_ROUNDS)
  for name in set(_files(tmp_path)) & set(_files(original)):
    one, other = (np.load(f / name) for f in (tmp_path, original))
    assert sorted(one) == sorted(other)


class _Kill(BaseException):
  pass


@pytest.mark.parametrize(
  'where',
  [
    (zipfile.ZipFile, 'close'),
    (os, 'replace'),
    (tf.saved_model, 'save'),
    (client_state_log.ClientStateLog, 'prune'),
  ],
  ids=['half_written', 'before_its_name', 'before_the_server', 'after_both'],
)
def test_killed_while_saving_rolls_both_back_together(
  folder, where, monkeypatch
):
  opened, store = _open(folder)
  opened.restore(_SERVER)
  _advance(store)
  before = _files(folder)

  def kill(*args, **kwargs):
    raise _Kill

  with monkeypatch.context() as patch, pytest.raises(_Kill):
    patch.setattr(*where, kill)
    _save(opened, store)
  if where[1] in ('close', 'replace'):
    assert [n for n in _files(folder) if 'partial' not in n] == before
  survived = _ROUNDS + (where[1] == 'prune')
  _assert_restores(folder, survived)
  assert not list(folder.glob('*.partial'))
  # And the run goes on: the same round is saved over what was left of it.
  opened, store = _open(folder)
  opened.restore(_SERVER)
  while store.version < _ROUNDS + 3:
    _advance(store)
    if store.version > survived:
      _save(opened, store)
  _assert_restores(folder, _ROUNDS + 3)


def test_file_is_on_disk_before_the_server_is(folder, monkeypatch):
  synced = []
  fsync = os.fsync

  def recorded(descriptor):
    synced.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    fsync(descriptor)

  opened, store = _open(folder)
  opened.restore(_SERVER)
  _advance(store)
  monkeypatch.setattr(os, 'fsync', recorded)
  save = tf.saved_model.save

  def saved(*args, **kwargs):
    name = f'client_states_{_ROUNDS + 1}.npz'
    assert synced == [os.fspath(folder / f'{name}.partial'), os.fspath(folder)]
    assert (folder / name).exists()
    return save(*args, **kwargs)

  monkeypatch.setattr(tf.saved_model, 'save', saved)
  _save(opened, store)
  assert len(synced) > 2


def test_full_disk_is_an_os_error_that_names_the_file(folder, monkeypatch):
  opened, store = _open(folder)
  opened.restore(_SERVER)
  _advance(store)

  def full(*args):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left.*client_states_25.npz'):
      _save(opened, store)
  _assert_restores(folder, _ROUNDS)


def _newest(folder):
  return folder / _files(folder)[-1]


def _flip(path, position):
  content = bytearray(path.read_bytes())
  content[position] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  'damage',
  [
    lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    lambda p: p.write_bytes(b''),
    lambda p: p.unlink(),
  ],
  ids=['truncated', 'empty', 'missing'],
)
def test_damaged_states_roll_the_server_back_with_them(folder, damage):
  path = _newest(folder)
  damage(path)
  damaged = path.read_bytes() if path.exists() else None
  warnings = []
  _assert_restores(folder, _ROUNDS - _EVERY, warnings.append)
  [warning] = warnings
  assert f'round {_ROUNDS} cannot be read' in warning
  aside = folder / f'corrupt_{_ROUNDS}_1'
  assert (aside / 'saved_model.pb').exists()
  if damaged is not None:
    assert (aside / path.name).read_bytes() == damaged
  _, store = _run(folder, _ROUNDS)
  assert _contents(store) == _states_after(_ROUNDS)


def test_no_flipped_bit_in_any_array_is_taken(folder):
  path = _newest(folder)
  good = path.read_bytes()
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
  assert [m.filename for m in members] == [
    'previous.npy',
    'clients.npy',
    'leaf_0.npy',
    'leaf_1.npy',
    'leaf_2.npy',
  ]
  for member in members:
    # Past the zip's own header and the name; the NumPy header is 128 bytes.
    start = good.index(b'\x93NUMPY', member.header_offset)
    for position in (start, start + 30, start + member.file_size - 1):
      path.write_bytes(good)
      _flip(path, position)
      log = client_state_log.ClientStateLog(folder, _store())
      with pytest.raises(Exception, match='.'):
        log.load(_ROUNDS)
      assert log._store.num_participants == 0
  path.write_bytes(good)
  client_state_log.ClientStateLog(folder, _store()).load(_ROUNDS)


def test_damaged_server_rolls_the_states_back_with_it(folder):
  (folder / f'round_{_ROUNDS}' / 'saved_model.pb').write_bytes(b'')
  path = _newest(folder)
  warnings = []
  _assert_restores(folder, _ROUNDS - _EVERY, warnings.append)
  assert not path.exists()
  assert (folder / f'corrupt_{_ROUNDS}_1' / path.name).exists()


def test_all_damaged_starts_again_with_nobody(folder):
  for path in folder.glob('client_states_*'):
    path.write_bytes(b'damaged')
  warnings = []
  opened, store = _open(folder, warnings.append)
  state, completed = opened.restore(_SERVER)
  assert (state, completed) == (_SERVER, 0)
  assert (store.version, store.clients, store.changed) == (0, [], set())
  assert len(warnings) == 4
  _, store = _run(folder, 4)
  assert _contents(store) == _states_after(4)


def test_states_of_another_shape_are_not_taken(folder):
  other = state_channel.Channel(
    state_type=tff.types.tensorflow_to_type(
      collections.OrderedDict(
        vector=tf.TensorSpec([_SIZE], tf.float64),
        count=tf.TensorSpec([], tf.int64),
        flag=tf.TensorSpec([2, 1], tf.bool),
      )
    ),
    path=('client_states',),
  )
  warnings = []
  store = client_store.Store(other)
  opened = checkpoints.Checkpoints(folder, warn=warnings.append, store=store)
  assert opened.restore(_SERVER)[1] == 0
  assert 'float64' not in warnings[0] and 'expected states' in warnings[0]


def test_states_of_another_round_are_not_saved(folder):
  opened, store = _open(folder)
  opened.restore(_SERVER)
  with pytest.raises(ValueError, match=f'round {_ROUNDS + 1}, found'):
    opened.save(_SERVER, _ROUNDS + 1)
  assert opened.rounds()[-1] == _ROUNDS


def _rows_in(path):
  with np.load(path) as file:
    return len(file['clients'])


def test_checkpoint_costs_what_changed(tmp_path):
  opened, store = _open(tmp_path)
  crowd = np.arange(1000) * 100

  def update(clients):
    leaves = store.rows(clients)
    store.update(state_channel.Rows(clients, leaves), store.version + 1)
    _save(opened, store)
    return _rows_in(_newest(tmp_path))

  assert update(crowd) == 1000
  assert [update(crowd[n : n + 10]) for n in range(5)] == [10] * 5
  assert update(crowd[:0]) == 0
  written = [update(crowd[n : n + 90]) for n in range(40)]
  # Whole files come so seldom that a change is written twice on average.
  assert written.count(1000) == 3
  assert sum(written) <= 2 * 90 * 40
  on_disk = sum(map(_rows_in, tmp_path.glob('client_states_*')))
  assert on_disk <= 4 * 1000


def test_everybody_in_every_round_needs_no_file_of_another_round(tmp_path):
  opened, store = _open(tmp_path)
  everybody = np.arange(4)
  for _ in range(5):
    leaves = store.rows(everybody)
    store.update(state_channel.Rows(everybody, leaves), store.version + 1)
    _save(opened, store)
  assert _files(tmp_path) == [f'client_states_{r}.npz' for r in (3, 4, 5)]
  for path in tmp_path.glob('client_states_*'):
    with np.load(path) as file:
      assert file['previous'] == [-1]


def test_file_is_readable_with_numpy(folder):
  with np.load(_newest(folder)) as file:
    clients = file['clients']
    assert file['leaf_0'].shape == (len(clients), _SIZE)
    assert file['leaf_2'].shape == (len(clients), 2, 1)


def test_run_without_client_states_writes_none(tmp_path):
  opened = checkpoints.Checkpoints(tmp_path, warn=pytest.fail)
  opened.save(_SERVER, 1)
  assert [p.name for p in tmp_path.iterdir()] == ['round_1']
