"""CIFAR-10: 50,000 and 10,000 colour images of 32x32.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The
files are pickles. They are read by an unpickler that can build lists, numbers
and strings only: the three NumPy names that they use become plain records.
"""

from collections.abc import Iterator
import io
import math
import pathlib
import pickle
import tarfile
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import stand_in

SHAPE = (32, 32, 3)
NUM_CLASSES = 10
FOLDER = 'cifar-10-batches-py'
FILE = downloads.File(
  name='cifar-10-batches-py.tar.gz',
  url='https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz',
  sha256='6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce',
  also_at=(
    'datasets/cifar-10-batches-py.tar.gz',
    'cifar-10-python.tar.gz',
    'datasets/cifar-10-python.tar.gz',
  ),
)
_BATCHES = tuple(f'data_batch_{i}' for i in range(1, 6))
_TEST = 'test_batch'
_LARGEST_BATCH = 64 << 20  # The real ones have 31 MB.


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the files."""
  del task
  if _folder(data_dir) is None:
    downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the images: x uint8 [n, 32, 32, 3], y int32 [n]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.images(SHAPE, num_classes=NUM_CLASSES)
  else:
    train, test = _read(data_dir)
  return data_set.DataSet(
    train=train,
    test=test,
    num_classes=NUM_CLASSES,
    preprocessing='crop',
    is_stand_in=is_stand_in,
  )


def _folder(data_dir: pathlib.Path) -> pathlib.Path | None:
  for folder in (data_dir / FOLDER, data_dir / 'datasets' / FOLDER):
    if folder.is_dir():
      return folder
  return None


def _read(data_dir: pathlib.Path) -> stand_in.Pooled:
  folder = _folder(data_dir)
  path = folder or downloads.require(FILE, data_dir)
  contents = _from_folder if folder else _from_archive
  found = {}
  with raw_files.complaints(path):
    for name, content in contents(path):
      with raw_files.complaints(path / name):
        found[name] = _examples(content)
    missing = {*_BATCHES, _TEST} - set(found)
    if missing:
      raise ValueError(f'it has no {min(missing)}')
  batches = [found[name] for name in _BATCHES]
  train = client_data.Examples(
    np.concatenate([batch.x for batch in batches]),
    np.concatenate([batch.y for batch in batches]),
  )
  return train, found[_TEST]


def _from_folder(folder: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  for name in (*_BATCHES, _TEST):
    yield name, (folder / name).read_bytes()


def _from_archive(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  """Yields the batches of the archive; nothing is extracted to disk."""
  wanted = {f'{FOLDER}/{name}': name for name in (*_BATCHES, _TEST)}
  try:
    with tarfile.open(path, 'r:gz') as archive:
      for member in archive:
        if member.isfile() and member.name in wanted:
          if member.size > _LARGEST_BATCH:
            raise ValueError(f'{member.name} has {member.size} bytes')
          yield wanted[member.name], archive.extractfile(member).read()
  except tarfile.TarError as e:
    raise ValueError(str(e)) from e


def _examples(content: bytes) -> client_data.Examples:
  batch = unpickle_plain(content)
  if not isinstance(batch, dict):
    raise ValueError(f'it holds a {type(batch).__name__}, not a dictionary')
  y = np.array([_whole(label) for label in batch[b'labels']], np.int32)
  pixels = _pixels(batch[b'data'])
  if len(pixels) != len(y):
    raise ValueError(f'it has {len(pixels)} images and {len(y)} labels')
  raw_files.check_labels('it', y, num_classes=NUM_CLASSES)
  height, width, channels = SHAPE
  x = pixels.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
  return client_data.Examples(np.ascontiguousarray(x), y)


def _whole(label: Any) -> int:
  if type(label) is not int or not 0 <= label < NUM_CLASSES:
    raise ValueError(f'label {label!r} is not one of 0 to {NUM_CLASSES - 1}')
  return label


def _pixels(array: Any) -> np.ndarray:
  """Returns the rows of a pickled uint8 array."""
  state = getattr(array, 'state', None)
  fits = isinstance(array, _Array) and isinstance(state, tuple)
  if not fits or len(state) != 5:
    raise ValueError('its data is no array')
  _, shape, dtype, fortran, content = state
  if not isinstance(dtype, _Dtype) or dtype.name not in ('u1', b'u1'):
    raise ValueError('its data are no bytes')
  if not isinstance(content, bytes):
    raise ValueError('its data has no content')
  columns = math.prod(SHAPE)
  rows = len(content) // columns
  if shape != (rows, columns) or len(content) != rows * columns:
    raise ValueError(f'it states {shape} pixels, and has {len(content)} bytes')
  values = np.frombuffer(content, np.uint8)
  return values.reshape(shape, order='F' if fortran else 'C')


class _Array:
  """What a pickle says about an array: never NumPy's own constructor."""

  state: Any = None

  def __setstate__(self, state: Any) -> None:
    self.state = state


class _Dtype:
  """What a pickle says about a dtype."""

  def __init__(self, name: Any = None, *rest: Any):
    del rest
    self.name = name

  def __setstate__(self, state: Any) -> None:
    del state


def _reconstruct(*arguments: Any) -> _Array:
  del arguments
  return _Array()


_NAMES = {
  ('numpy.core.multiarray', '_reconstruct'): _reconstruct,
  ('numpy', 'ndarray'): _Array,
  ('numpy', 'dtype'): _Dtype,
}


class _PlainUnpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    try:
      return _NAMES[module, name]
    except KeyError:
      raise ValueError(
        f'it asks for {module}.{name}, which no CIFAR batch needs'
      ) from None


def unpickle_plain(content: bytes) -> Any:
  """Returns a pickle's content without running anything that it names.

  Raises:
    ValueError: If it names anything but the three records above, or is
      damaged.
  """
  try:
    return _PlainUnpickler(io.BytesIO(content), encoding='bytes').load()
  except (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RecursionError,
    OverflowError,
    MemoryError,
  ) as e:
    raise ValueError(f'it is no pickled batch ({e})') from e
