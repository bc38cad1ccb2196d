"""Reading files of strangers: every mistake in one becomes a `UsageError`.

Nothing is unpickled, and no size that a file states is believed before the
file has shown as many bytes.
"""

from collections.abc import Iterator, Mapping
import contextlib
import csv
import gzip
import math
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib

import numpy as np
import psutil

from tff_pipeline import validate

_IDX_BYTES = 0x08
_LARGEST = 1 << 30  # Bytes; MNIST has 47 million.
UNREADABLE = (
  OSError,
  EOFError,
  ValueError,
  KeyError,
  MemoryError,
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
  NotImplementedError,
  RuntimeError,  # Of an archive that says to be encrypted.
  SyntaxError,  # The headers of NumPy's arrays are Python literals.
  tokenize.TokenError,
  csv.Error,
)
"""What reading a damaged or hostile file raises."""


def check_memory(path: str | os.PathLike[str], needed: int, flag: str) -> None:
  """Refuses a file that unpacks to more than the memory that is free.

  Args:
    path: The file.
    needed: Bytes, as the file itself states them.
    flag: Which one named the file.

  Raises:
    UsageError: If it does.
  """
  free = psutil.virtual_memory().available
  if needed > free:
    raise validate.error(
      flag,
      expected=f'a file that fits into the {free} bytes of free memory',
      found=f'{needed} bytes, packed in {os.fspath(path)}',
    )


def unpacked_bytes(archive: np.lib.npyio.NpzFile) -> int:
  """Returns what the arrays take; reading one never goes beyond it."""
  return sum(member.file_size for member in archive.zip.infolist())


def array(archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
  """Returns an array; raises one of UNREADABLE where it is damaged."""
  found = archive[name]
  if not isinstance(found, np.ndarray):  # Bytes, where its first ones differ.
    raise ValueError(f'{name} is no array')
  return found


@contextlib.contextmanager
def complaints(path: pathlib.Path) -> Iterator[None]:
  """Turns whatever is wrong with a file into one line about it."""
  try:
    yield
  except validate.UsageError:
    raise
  except UNREADABLE as e:
    reason = ' '.join(str(e).split()) or type(e).__name__
    raise bad(path, reason) from e


def bad(path: pathlib.Path, reason: str) -> validate.UsageError:
  """Returns the error for a file with something wrong in it."""
  return validate.error(
    'data_dir',
    expected=f'a whole and unchanged {path.name}',
    found=f'{path}: {reason}',
    remedy='Replace the file, or delete it to download it again',
  )


def check_array(
  name: str,
  array: np.ndarray,
  *,
  dtype: type,
  shape: tuple[int | None, ...],
) -> None:
  """Raises `ValueError` unless an array has this dtype and shape.

  Args:
    name: What to call it.
    array: The array.
    dtype: Its dtype.
    shape: Its shape; `None` fits any size.
  """
  fits = len(array.shape) == len(shape) and all(
    wanted in (None, size)
    for wanted, size in zip(shape, array.shape, strict=True)
  )
  if array.dtype != dtype or not fits:
    shown = tuple('n' if size is None else size for size in shape)
    raise ValueError(
      f'{name} is {array.dtype} {array.shape} instead of '
      f'{np.dtype(dtype)} {shown}'.replace("'", '')
    )


def check_labels(name: str, labels: np.ndarray, *, num_classes: int) -> None:
  """Raises `ValueError` for a label outside 0 ... num_classes - 1."""
  if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(
      f'{name} has labels from {labels.min()} to {labels.max()} instead of 0 '
      f'to {num_classes - 1}'
    )


def read_npz(
  path: pathlib.Path,
  names: Mapping[str, tuple[type, tuple[int | None, ...]]],
) -> dict[str, np.ndarray]:
  """Returns arrays of an npz file by name, without unpickling anything.

  Args:
    path: The file.
    names: Name -> dtype and shape; `None` in a shape fits any size.

  Raises:
    UsageError: If the file is damaged or other than that.
  """
  arrays = {}
  with complaints(path):
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
      raise ValueError('it is no npz archive')
    with archive:
      check_memory(path, unpacked_bytes(archive), 'data_dir')
      for name, (dtype, shape) in names.items():
        if name not in archive:
          raise ValueError(f'it has no array {name}')
        arrays[name] = array(archive, name)
        check_array(name, arrays[name], dtype=dtype, shape=shape)
  return arrays


def read_idx(
  path: pathlib.Path, *, shape: tuple[int | None, ...]
) -> np.ndarray:
  """Returns the bytes of a gzipped idx file (LeCun's format); uint8.

  Args:
    path: The file.
    shape: What it has to hold; `None` fits any size.

  Raises:
    UsageError: If the file is damaged or other than that.
  """
  with complaints(path), gzip.open(path) as file:
    zeros, kind, rank = struct.unpack('>HBB', file.read(4))
    if zeros or kind != _IDX_BYTES or rank != len(shape):
      raise ValueError(
        f'its header {zeros:04x} {kind:02x} {rank:02x} is not that of bytes '
        f'in {len(shape)} dimensions'
      )
    sizes = struct.unpack(f'>{rank}I', file.read(4 * rank))
    # Sizes are compared one by one before anything of their product is read.
    for size, wanted in zip(sizes, shape, strict=True):
      if wanted is not None and size != wanted:
        raise ValueError(f'it holds {sizes} values instead of {shape}')
    stated = math.prod(sizes)
    if stated > _LARGEST:
      raise ValueError(f'it states {sizes} values')
    content = file.read(stated + 1)
    if len(content) != stated:
      raise ValueError(f'it states {sizes} values, and has {len(content)}')
  return np.frombuffer(content, np.uint8).reshape(sizes)
