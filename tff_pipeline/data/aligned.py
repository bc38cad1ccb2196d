"""Arrays that TensorFlow can read where they are.

`tf.constant` copies every array, at about 1 GB/s. TensorFlow takes memory that
is aligned to 64 bytes as it is, through DLPack; NumPy's own is not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_BYTES = 64  # EIGEN_MAX_ALIGN_BYTES, what TensorFlow's kernels rely on.


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
  """Returns an aligned array that holds anything, like `np.empty`."""
  dtype = np.dtype(dtype)
  size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
  memory = np.empty(size + _BYTES, np.uint8)
  start = -memory.ctypes.data % _BYTES
  return memory[start : start + size].view(dtype).reshape(shape)


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Returns `array[rows]`, aligned."""
  # With mode='raise', NumPy would write to a buffer first, and then copy it.
  if len(rows) and not 0 <= rows.min() <= rows.max() < len(array):
    raise IndexError(f'Expected rows 0 to {len(array) - 1}, found others.')
  out = empty((len(rows), *array.shape[1:]), array.dtype)
  return np.take(array, rows, axis=0, out=out, mode='clip')


def as_tensor(array: np.ndarray) -> tf.Tensor:
  """Returns a tensor that shares the memory of an aligned array.

  Args:
    array: Must not be changed while the tensor is in use. If it is not aligned,
      or of a type that DLPack lacks, the tensor is a copy.
  """
  is_aligned = array.ctypes.data % _BYTES == 0 and array.flags.c_contiguous
  if not is_aligned or array.dtype.kind not in 'iuf':
    return tf.constant(array)
  return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
