import numpy as np
import pytest

from tff_pipeline.data import client_data


def _examples(size):
  x = np.arange(3 * size, dtype=np.float32).reshape(size, 3)
  return client_data.Examples(x, np.arange(size, dtype=np.int32))


def test_clients_own_their_rows():
  data = client_data.ClientData(_examples(6), np.array([0, 2, 2, 6]))
  assert data.num_clients == 3
  assert data.client_sizes.tolist() == [2, 0, 4]
  rows = [data.client(i)['y'].tolist() for i in range(3)]
  assert rows == [[0, 1], [], [2, 3, 4, 5]]
  assert data.client(2)['x'].tolist() == data.examples.x[2:].tolist()


def test_a_client_is_a_view():
  data = client_data.ClientData(_examples(6), np.array([0, 6]))
  assert np.shares_memory(data.client(0)['x'], data.examples.x)


def test_assignment_is_laid_out_client_after_client():
  data = client_data.from_assignment(
    _examples(5), [np.array([4, 0]), np.array([], np.int64), np.array([2])]
  )
  assert data.client_sizes.tolist() == [2, 0, 1]
  assert data.client(0)['y'].tolist() == [4, 0]
  assert data.client(2)['x'].tolist() == [[6, 7, 8]]


@pytest.mark.parametrize(
  'offsets', [[0, 2], [1, 6], [0, 7], [0, 4, 3, 6]], ids=str
)
def test_refuses_offsets_that_do_not_cover_the_rows_once(offsets):
  with pytest.raises(ValueError, match='offsets'):
    client_data.ClientData(_examples(6), np.array(offsets))


def test_refuses_examples_without_labels():
  with pytest.raises(ValueError, match='as many labels'):
    client_data.Examples(np.zeros((3, 2)), np.zeros(2))
