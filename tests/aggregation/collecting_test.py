"""The collecting aggregator on TFF's runtime: all rows, no order promised."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.aggregation import collecting

# Names against the alphabet, a tuple inside, and every kind of number.
_VALUE = collections.OrderedDict(
  b=tf.TensorSpec([2, 3], tf.float32),
  a=(tf.TensorSpec([], tf.int64), tf.TensorSpec([0], tf.float64)),
  flag=tf.TensorSpec([], tf.bool),
)


def _value(number):
  return collections.OrderedDict(
    b=np.full([2, 3], number, np.float32),
    a=(np.int64(-number), np.zeros(0)),
    flag=number % 2 == 0,
  )


@pytest.fixture(scope='module')
def process():
  return collecting.CollectingFactory().create(
    tff.types.tensorflow_to_type(_VALUE)
  )


@pytest.mark.usefixtures('on_tff_runtime')
@pytest.mark.parametrize('size', [0, 1, 7])
def test_all_rows_come_back_together(process, size):
  output = process.next(
    process.initialize(), [_value(n + 1) for n in range(size)]
  )
  rows = output.result
  assert list(rows) == ['b', 'a', 'flag']
  assert rows['b'].shape == (size, 2, 3)
  assert rows['a'][1].shape == (size, 0)
  assert rows['flag'].dtype == bool
  numbers = -np.array(rows['a'][0], np.int64)
  assert sorted(numbers) == list(range(1, size + 1))
  for number, b, flag in zip(numbers, rows['b'], rows['flag'], strict=True):
    np.testing.assert_array_equal(b, np.full([2, 3], number))
    assert flag == (number % 2 == 0)


@pytest.mark.usefixtures('on_tff_runtime')
def test_one_tensor_needs_no_structure():
  process = collecting.CollectingFactory().create(tff.TensorType(np.int32))
  output = process.next(process.initialize(), [3, 1, 2])
  assert sorted(output.result) == [1, 2, 3]


def test_type_at_the_server_has_a_row_for_each_client(process):
  found = process.next.type_signature.result.result
  assert found.placement is tff.SERVER
  assert str(found.member) == (
    '<b=float32[?,2,3],a=<int64[?],float64[?,0]>,flag=bool[?]>'
  )


@pytest.mark.parametrize(
  'value_type',
  [
    tff.TensorType(np.float32, [None]),
    tff.SequenceType(np.float32),
    tff.types.to_type([('a', np.float32), ('b', tff.SequenceType(np.int32))]),
  ],
)
def test_value_without_a_fixed_shape_is_refused(value_type):
  with pytest.raises(TypeError, match='fully defined shapes'):
    collecting.CollectingFactory().create(value_type)


def test_packed_is_the_inverse_of_flattening():
  member = tff.types.tensorflow_to_type(_VALUE)
  packed = collecting.packed(range(4), member)
  assert packed == collections.OrderedDict(b=0, a=(1, 2), flag=3)
  assert collecting.packed([5], tff.TensorType(np.int32)) == 5
