"""Memory that TensorFlow shares, and what it has to copy."""

import gc

import numpy as np
import pytest
import tensorflow as tf

from tff_pipeline.data import aligned


@pytest.mark.parametrize('shape', [(), (0,), (3,), (5, 0, 2), (7, 11)])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'int64', 'uint8'])
def test_arrays_are_shared(shape, dtype):
  array = aligned.empty(shape, dtype)
  assert (array.shape, array.dtype) == (shape, dtype)
  assert array.ctypes.data % 64 == 0 or not array.size
  array[...] = 3
  tensor = aligned.as_tensor(array)
  assert (tensor.shape, tensor.dtype) == (shape, dtype)
  array[...] = 4  # Forbidden; it shows that there is one memory.
  np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize(
  'array',
  [
    aligned.empty((4,), bool),
    aligned.empty((64, 2), np.float32)[::2],
    np.arange(1000, dtype=np.float32)[1:],
  ],
  ids=['no_such_type', 'gaps', 'not_aligned'],
)
def test_other_arrays_are_copied(array):
  array[...] = 1
  tensor = aligned.as_tensor(array)
  array[...] = 0
  np.testing.assert_array_equal(tensor, np.ones_like(array))


def test_tensor_keeps_the_memory():
  array = aligned.empty((1000, 1000), np.float32)
  array[...] = 5
  tensor = aligned.as_tensor(array)
  del array
  gc.collect()
  other = np.zeros((1000, 1000), np.float32)
  assert float(tf.reduce_sum(tensor)) == 5e6
  assert not other.any()


def test_take_is_indexing():
  array = np.arange(30).reshape(10, 3)
  rows = np.array([9, 0, 0, 4])
  taken = aligned.take(array, rows)
  np.testing.assert_array_equal(taken, array[rows])
  assert taken.ctypes.data % 64 == 0
  assert aligned.take(array, rows[:0]).shape == (0, 3)


@pytest.mark.parametrize('row', [-1, 10])
def test_rows_that_are_not_there_are_refused(row):
  with pytest.raises(IndexError, match='rows 0 to 9'):
    aligned.take(np.zeros((10, 3)), np.array([1, row]))
