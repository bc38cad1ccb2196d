"""Thousands of damaged files: each is read, or refused in one line.

A damaged file of every format that is read. Derandomized, so that a failure is
everybody's. What is read must be data that a model can learn from.
"""

from collections.abc import Callable
import dataclasses
import pathlib
import shutil
import warnings

import hypothesis
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from tests import fuzzing
from tests import tiny_files
from tests.data import client_files_test
from tests.data import har_test
from tests.data import heart_disease_test
from tests.data import image_files_test
from tests.data import sqlite_files
from tests.data.files import npz_test
from tests.data.files import own_data
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import cifar10
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import emnist
from tff_pipeline.data import fashion_mnist
from tff_pipeline.data import har
from tff_pipeline.data import heart_disease
from tff_pipeline.data import mnist
from tff_pipeline.data import shakespeare
from tff_pipeline.data.files import delimited
from tff_pipeline.data.files import image_folder
from tff_pipeline.data.files import npz
from tff_pipeline.data.files import parquet
from tff_pipeline.data.files import tff_sqlite

_POOLED = {'partition': 'iid', 'clients': 2}


@dataclasses.dataclass(frozen=True)
class _Reader:
  """A format.

  Attributes:
    write: Writes whole files into a folder, and returns the one to be damaged.
    module: Reads them.
    leaves: Of the task.
    own: Whether the file is named by --task.path, or found in --data_dir.
  """

  write: Callable[[pathlib.Path], pathlib.Path]
  module: object
  leaves: dict[str, object]
  own: bool = False

  def read(self, folder: pathlib.Path, path: pathlib.Path) -> data_set.DataSet:
    place = {'path': str(path)} if self.own else {}
    task = config.Task(**(place | self.leaves))
    return self.module.load(task, data_dir=folder)


def _mnist(folder):
  tiny_files.mnist(folder / 'mnist.npz')
  return folder / 'mnist.npz'


def _fashion_mnist(folder):
  tiny_files.fashion_mnist(folder / 'fashion-mnist')
  return folder / 'fashion-mnist' / 'train-images-idx3-ubyte.gz'


def _cifar10_batch(folder):
  image_files_test._write_cifar(folder / 'cifar-10-batches-py')
  return folder / 'cifar-10-batches-py' / 'data_batch_3'


def _cifar10_archive(folder):
  batches = _cifar10_batch(folder).parent
  content = {
    f'cifar-10-batches-py/{p.name}': p.read_bytes() for p in batches.iterdir()
  }
  shutil.rmtree(batches)
  path = folder / 'cifar-10-batches-py.tar.gz'
  path.write_bytes(tiny_files.tar(content, mode='w:gz'))
  return path


def _har(folder):
  har_test._write(folder)
  return folder / 'har.npz'


def _heart_disease(folder):
  rng = np.random.default_rng(0)
  rows = [
    heart_disease_test._row(rng, hospital, target)
    for hospital in heart_disease.HOSPITALS
    for target in (0, 1)
    for _ in range(9)
  ]
  heart_disease_test._write(folder, rows)
  return folder / 'heart_disease.csv'


def _emnist(folder):
  path = folder / 'emnist_all.sqlite'
  splits = tiny_files.splits(client_files_test._image, 'digits_only_')
  tiny_files.sqlite(path, splits)
  return path


def _shakespeare(folder):
  path = folder / 'shakespeare.sqlite'
  tiny_files.sqlite(path, tiny_files.splits(client_files_test._speech))
  return path


def _npz(folder):
  np.savez(folder / 'own.npz', **npz_test.ARRAYS)
  return folder / 'own.npz'


def _compressed_npz(folder):
  np.savez_compressed(folder / 'own.npz', **npz_test.ARRAYS)
  return folder / 'own.npz'


def _parquet(folder):
  own_data.frame().to_parquet(folder / 'own.parquet')
  return folder / 'own.parquet'


def _picture(suffix):
  def write(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    for client in ('ann', 'bob'):
      for label in ('dark', 'light'):
        own = folder / client / label
        own.mkdir(parents=True)
        for i in range(2):
          Image.fromarray(pixels).save(own / f'{i}.{suffix}')
    return folder / 'ann' / 'dark' / f'0.{suffix}'

  return write


@dataclasses.dataclass(frozen=True)
class _Pictures(_Reader):
  """A folder is named, and one of its files damaged."""

  def read(self, folder: pathlib.Path, path: pathlib.Path) -> data_set.DataSet:
    return super().read(folder, folder)


_NPZ = {'name': 'npz', 'label_column': 'label', 'client_column': 'who'}
_FOLDER = {'name': 'image_folder', 'image_size': 8}
_READERS = {
  'mnist': _Reader(_mnist, mnist, {'name': 'mnist', **_POOLED}),
  'fashion_mnist': _Reader(
    _fashion_mnist, fashion_mnist, {'name': 'fashion_mnist', **_POOLED}
  ),
  'cifar10 batch': _Reader(
    _cifar10_batch, cifar10, {'name': 'cifar10', **_POOLED}
  ),
  'cifar10 archive': _Reader(
    _cifar10_archive, cifar10, {'name': 'cifar10', **_POOLED}
  ),
  'har': _Reader(_har, har, {'name': 'har'}),
  'heart_disease': _Reader(
    _heart_disease, heart_disease, {'name': 'heart_disease'}
  ),
  'emnist': _Reader(_emnist, emnist, {'name': 'emnist_digits'}),
  'shakespeare': _Reader(_shakespeare, shakespeare, {'name': 'shakespeare'}),
  'npz': _Reader(_npz, npz, _NPZ, own=True),
  'compressed npz': _Reader(_compressed_npz, npz, _NPZ, own=True),
  'csv': _Reader(
    own_data.csv, delimited, {'name': 'csv', **own_data.COLUMNS}, own=True
  ),
  'parquet': _Reader(
    _parquet, parquet, {'name': 'parquet', **own_data.COLUMNS}, own=True
  ),
  'png': _Pictures(_picture('png'), image_folder, _FOLDER, own=True),
  'jpg': _Pictures(_picture('jpg'), image_folder, _FOLDER, own=True),
  'bmp': _Pictures(_picture('bmp'), image_folder, _FOLDER, own=True),
  'tff_sqlite': _Reader(
    lambda folder: sqlite_files.write(
      folder / 'own.sqlite', clients=3, test_clients=2
    ),
    tff_sqlite,
    {'name': 'tff_sqlite', 'label_column': 'label', 'classes': 10},
    own=True,
  ),
}


@pytest.fixture(scope='module', params=_READERS)
def whole(request, tmp_path_factory):
  """A reader, its folder, the file to be damaged and its content."""
  reader = _READERS[request.param]
  folder = tmp_path_factory.mktemp('files')
  path = reader.write(folder)
  _assert_whole(reader.read(folder, path))
  return reader, folder, path, path.read_bytes()


def _assert_whole(data):
  parts = [data.train]
  if hasattr(data.train, 'num_clients'):  # It may be streamed: read it all.
    numbers = range(data.train.num_clients)
    parts = [client_data.Examples(**data.train.client(i)) for i in numbers]
  assert all(len(part.x) == len(part.y) for part in parts)
  assert sum(len(part.x) for part in parts)


@st.composite
def _damaged(draw, content):
  """Cuts, flips, overwrites, inserts, deletes or repeats; a few times."""
  for _ in range(draw(st.integers(1, 3))):
    if not content:
      break
    # Beginnings and ends have headers and directories.
    start = draw(
      st.one_of(
        st.integers(0, len(content) - 1),
        st.integers(0, min(300, len(content) - 1)),
        st.integers(max(0, len(content) - 300), len(content) - 1),
      )
    )
    size = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 100]))
    kind = draw(st.sampled_from(['cut', *['put'] * 6, 'insert', 'delete']))
    end = min(len(content), start + size)
    put = draw(
      st.one_of(
        st.binary(min_size=end - start, max_size=end - start),
        st.sampled_from([b'\0', b'\xff', b'\x7f', b'9', b'"', b'\n']).map(
          lambda b, n=end - start: b * n
        ),
      )
    )
    content = {
      'cut': content[:start],
      'put': content[:start] + put + content[end:],
      'insert': content[:start] + put + content[start:],
      'delete': content[:start] + content[end:],
    }[kind]
  return content


def _check(whole, content):
  reader, folder, path, _ = whole
  path.write_bytes(content)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      _assert_whole(reader.read(folder, path))
  except validate.UsageError as e:
    assert str(e).startswith(('--data_dir: ', '--task.'))
    assert len(str(e).splitlines()) == 1, repr(str(e))


@fuzzing.many(60)
@hypothesis.given(st.data())
def test_damaged_file_is_read_or_refused_in_a_line(whole, data):
  _check(whole, data.draw(_damaged(whole[3])))


@pytest.mark.slow
@fuzzing.many(2000)
@hypothesis.given(st.data())
def test_many_more_damaged_files(whole, data):
  _check(whole, data.draw(_damaged(whole[3])))
