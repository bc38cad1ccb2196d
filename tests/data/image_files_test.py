"""MNIST, Fashion-MNIST and CIFAR-10 from tiny files, whole and damaged."""

import gzip
import io
import os
import pickle
import zipfile

import numpy as np
import psutil
import pytest

from tests import tiny_files
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import cifar10
from tff_pipeline.data import fashion_mnist
from tff_pipeline.data import mnist

_OBJECTS = np.array([[1], [2, 3]], dtype=object)
_IMAGES, _LABELS = tiny_files.labelled_images(7)


def _task(name):
  return config.Task(name=name, partition='iid', clients=2)


def _refusal(module, name, folder):
  with pytest.raises(validate.UsageError) as caught:
    module.load(_task(name), data_dir=folder)
  message = str(caught.value)
  assert message.startswith('--data_dir: expected a whole and unchanged ')
  assert '\n' not in message
  return message


@pytest.mark.parametrize('place', ['mnist.npz', 'datasets/mnist.npz'])
def test_mnist(tmp_path, place):
  path = tmp_path / place
  path.parent.mkdir(exist_ok=True)
  arrays = tiny_files.mnist(path)
  mnist.prepare(_task('mnist'), data_dir=tmp_path)
  data = mnist.load(_task('mnist'), data_dir=tmp_path)
  for part, found in (('train', data.train), ('test', data.test)):
    np.testing.assert_array_equal(found.x[..., 0], arrays[f'x_{part}'])
    np.testing.assert_array_equal(found.y, arrays[f'y_{part}'])
    assert found.x.dtype == np.uint8 and found.y.dtype == np.int32
  assert data.preprocessing == 'scale' and not data.is_stand_in


@pytest.mark.parametrize(
  'changes, named',
  [
    ({'x_test': None}, 'no array x_test'),
    ({'y_train': _OBJECTS}, 'allow_pickle=False'),
    ({'x_train': _IMAGES.astype(np.float32)}, 'x_train is float32'),
    ({'x_train': _IMAGES[:, :27]}, '(7, 27, 28) instead of uint8 (n, 28, 28)'),
    ({'x_train': _IMAGES[:6]}, '7 labels and 6 examples'),
    ({'y_train': np.full(7, 10, np.uint8)}, 'from 10 to 10 instead of 0 to 9'),
  ],
)
def test_mnist_of_another_content(tmp_path, changes, named):
  tiny_files.mnist(tmp_path / 'mnist.npz', **changes)
  assert named in _refusal(mnist, 'mnist', tmp_path)


def _boasting_npz(path):
  """An array whose header promises a hundred terabytes."""
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header,
    {'descr': '|u1', 'fortran_order': False, 'shape': (10**11, 28, 28)},
  )
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('x_train.npy', header.getvalue() + b'few')


@pytest.mark.parametrize('keep', [0, 1, 100, -1, -30])
def test_truncated_mnist(tmp_path, keep):
  path = tmp_path / 'mnist.npz'
  tiny_files.mnist(path)
  path.write_bytes(path.read_bytes()[:keep])
  _refusal(mnist, 'mnist', tmp_path)


def test_hostile_mnist(tmp_path):
  path = tmp_path / 'mnist.npz'
  _boasting_npz(path)
  _refusal(mnist, 'mnist', tmp_path)
  path.write_bytes(pickle.dumps({'x_train': 1}))
  _refusal(mnist, 'mnist', tmp_path)
  np.save(path.with_suffix('.npy'), _IMAGES)
  path.with_suffix('.npy').rename(path)
  assert 'no npz archive' in _refusal(mnist, 'mnist', tmp_path)
  path.unlink()
  path.mkdir()
  _refusal(mnist, 'mnist', tmp_path)


def test_mnist_that_unpacks_to_more_than_the_memory(tmp_path, monkeypatch):
  path = tmp_path / 'mnist.npz'
  tiny_files.mnist(path)
  memory = psutil.virtual_memory()._replace(available=100)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: memory)
  with pytest.raises(validate.UsageError, match='into the 100 bytes of free'):
    mnist.load(_task('mnist'), data_dir=tmp_path)


def test_flipped_bit_in_mnist(tmp_path):
  path = tmp_path / 'mnist.npz'
  tiny_files.mnist(path)
  content = bytearray(path.read_bytes())
  content[500] ^= 1
  path.write_bytes(content)
  assert 'CRC' in _refusal(mnist, 'mnist', tmp_path)


@pytest.mark.parametrize('place', ['fashion-mnist', 'datasets/fashion-mnist'])
def test_fashion_mnist(tmp_path, place):
  parts = tiny_files.fashion_mnist(tmp_path / place)
  fashion_mnist.prepare(_task('fashion_mnist'), data_dir=tmp_path)
  data = fashion_mnist.load(_task('fashion_mnist'), data_dir=tmp_path)
  for found, (x, y) in zip(
    (data.train, data.test), parts.values(), strict=True
  ):
    np.testing.assert_array_equal(found.x[..., 0], x)
    np.testing.assert_array_equal(found.y, y)


_GOOD = tiny_files.idx(_IMAGES)


@pytest.mark.parametrize(
  'content, named',
  [
    (_GOOD[:-20], ''),
    (_GOOD[:12], ''),
    (b'', ''),
    (b'\x1f\x8b not a gzip file', ''),
    (gzip.compress(b'\0\0\x08', mtime=0), ''),
    (tiny_files.idx(_LABELS), 'in 3 dimensions'),
    (tiny_files.idx(_IMAGES, header=(0, 0x0D, 3)), '0d 03'),
    (tiny_files.idx(_IMAGES, header=(1, 0x08, 3)), '0001'),
    (tiny_files.idx(_IMAGES, sizes=(6, 28, 28)), 'it states (6, 28, 28)'),
    (tiny_files.idx(_IMAGES, sizes=(8, 28, 28)), 'it states (8, 28, 28)'),
    (tiny_files.idx(_IMAGES, sizes=(7, 28, 27)), 'instead of'),
    (tiny_files.idx(_IMAGES, sizes=(2**32 - 1, 28, 28)), 'it states'),
    (tiny_files.idx(_IMAGES[:6]), '7 labels and 6 examples'),
  ],
)
def test_damaged_fashion_mnist(tmp_path, content, named):
  folder = tmp_path / 'fashion-mnist'
  tiny_files.fashion_mnist(folder)
  (folder / 'train-images-idx3-ubyte.gz').write_bytes(content)
  assert named in _refusal(fashion_mnist, 'fashion_mnist', tmp_path)


_BATCHES = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']


def _rows(size=3):
  x, y = tiny_files.labelled_images(size, shape=(3072,))
  return x, y.tolist()


def _write_cifar(folder, *, fortran=False):
  folder.mkdir(parents=True)
  batches = {}
  for number, name in enumerate(_BATCHES):
    rows, labels = batches[name] = _rows(2 + number)
    batch = tiny_files.cifar_batch(rows, labels, fortran=fortran)
    (folder / name).write_bytes(batch)
  return batches


def _assert_cifar(data, batches):
  train = [batches[name] for name in _BATCHES[:-1]]
  expected = {
    'train': [np.concatenate([part[i] for part in train]) for i in (0, 1)],
    'test': batches['test_batch'],
  }
  for name, (rows, labels) in expected.items():
    found = getattr(data, name)
    # A row is red, green, blue, each 32x32.
    x = rows.reshape(-1, 3, 32, 32)
    for channel in range(3):
      np.testing.assert_array_equal(found.x[..., channel], x[:, channel])
    np.testing.assert_array_equal(found.y, labels)


@pytest.mark.parametrize('fortran', [False, True])
@pytest.mark.parametrize('place', ['', 'datasets'])
def test_cifar10_folder(tmp_path, place, fortran):
  folder = tmp_path / place / 'cifar-10-batches-py'
  batches = _write_cifar(folder, fortran=fortran)
  cifar10.prepare(_task('cifar10'), data_dir=tmp_path)
  _assert_cifar(cifar10.load(_task('cifar10'), data_dir=tmp_path), batches)


def test_cifar10_archive_is_not_extracted(tmp_path):
  folder = tmp_path / 'made'
  batches = _write_cifar(folder)
  content = {
    f'cifar-10-batches-py/{name}': (folder / name).read_bytes()
    for name in _BATCHES
  } | {'../escape': b'x', 'cifar-10-batches-py/batches.meta': b'bad'}
  (tmp_path / 'data').mkdir()
  archive = tmp_path / 'data' / 'cifar-10-batches-py.tar.gz'
  archive.write_bytes(tiny_files.tar(content, mode='w:gz'))
  data = cifar10.load(_task('cifar10'), data_dir=tmp_path / 'data')
  _assert_cifar(data, batches)
  assert list((tmp_path / 'data').iterdir()) == [archive]
  assert not (tmp_path / 'escape').exists()


def test_damaged_cifar10_archive(tmp_path):
  archive = tmp_path / 'cifar-10-batches-py.tar.gz'
  for content in (
    b'',
    b'no archive',
    tiny_files.tar({'a': b'b'}, mode='w:gz'),
    tiny_files.tar({'a': bytes(range(256)) * 99}, mode='w:gz')[:-200],
  ):
    archive.write_bytes(content)
    _refusal(cifar10, 'cifar10', tmp_path)


class _Trap:
  """A pickle that runs a command when it is read."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.mkdir, (str(self._path),)


def _write_batch(folder, content):
  _write_cifar(folder / 'cifar-10-batches-py')
  (folder / 'cifar-10-batches-py' / 'data_batch_3').write_bytes(content)


def test_nothing_in_a_batch_is_run(tmp_path):
  trap = tmp_path / 'sprung'
  _write_batch(tmp_path, pickle.dumps({'data': _Trap(trap)}, protocol=2))
  message = _refusal(cifar10, 'cifar10', tmp_path)
  assert 'posix.mkdir' in message and 'data_batch_3' in message
  assert not trap.exists()


_SOME, _SOME_LABELS = _rows()


@pytest.mark.parametrize(
  'content',
  [
    b'',
    tiny_files.cifar_batch(_SOME, _SOME_LABELS)[:-1],
    tiny_files.cifar_batch(_SOME, _SOME_LABELS)[:-4000],
    tiny_files.cifar_batch(_SOME, _SOME_LABELS[:2]),
    tiny_files.cifar_batch(_SOME, [0, 1, 10]),
    tiny_files.cifar_batch(_SOME, [0, 1, -1]),
    tiny_files.cifar_batch(_SOME[:, :3000], _SOME_LABELS),
    tiny_files.cifar_batch(_SOME, _SOME_LABELS, shape=(1, 9216)),
    tiny_files.cifar_batch(_SOME, _SOME_LABELS, shape=(2**30, 3072)),
    tiny_files.cifar_batch(_SOME, _SOME_LABELS, dtype=b'O8'),
    pickle.dumps([1, 2]),
    pickle.dumps({b'data': 1, b'labels': [1]}),
    pickle.dumps({b'data': 1}),
    pickle.dumps({b'labels': [[1]], b'data': 2}),
    pickle.dumps(np.zeros(3)),
    b'\x80\x02cnumpy\nndarray\n(I99999999999\ntR.',
    b'\x80\x02cnumpy\nndarray\n.',
    b'\x80\x02h\x05.',
    b'cposix\nsystem\n(S"true"\ntR.',
  ],
  ids=range(19),
)
def test_damaged_batch(tmp_path, content):
  _write_batch(tmp_path, content)
  assert 'data_batch_3' in _refusal(cifar10, 'cifar10', tmp_path)
