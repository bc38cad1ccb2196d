import threading

import numpy as np
import pytest

from tff_pipeline.data import client_data
from tff_pipeline.data import streamed

_SIZES = np.array([3, 0, 2, 4, 1])
_ENDS = np.cumsum(_SIZES)


@pytest.fixture(name='memory')
def fixture_memory():
  n = _ENDS[-1]
  examples = client_data.Examples(
    np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n)
  )
  return client_data.ClientData(examples, np.concatenate([[0], _ENDS]))


class _Reader:
  """Reads from memory, and remembers what was asked for, and by whom."""

  def __init__(self, memory):
    self.memory = memory
    self.asked = []
    self.threads = []

  def __call__(self, clients):
    self.asked.append(clients.tolist())
    self.threads.append(threading.current_thread() is threading.main_thread())
    parts = [self.memory.client(i) for i in clients]
    return client_data.Examples(
      *(
        np.concatenate(
          [getattr(self.memory.prototype, k)] + [p[k] for p in parts]
        )
        for k in 'xy'
      )
    )


@pytest.fixture(name='reader')
def fixture_reader(memory):
  return _Reader(memory)


@pytest.fixture(name='clients')
def fixture_clients(memory, reader):
  return streamed.StreamedClients(
    reader, client_sizes=memory.client_sizes, prototype=memory.prototype
  )


def _rows(data, cohort):
  examples, starts = data.gather(np.array(cohort, np.int64))
  sizes = data.client_sizes[np.array(cohort, np.int64)]
  return [
    examples.x[start : start + size].tolist()
    for start, size in zip(starts, sizes, strict=True)
  ]


COHORTS = [[0], [3, 0, 2], [4, 3, 2, 1, 0], [1], [], [2, 4]]


@pytest.mark.parametrize('cohort', COHORTS, ids=str)
@pytest.mark.parametrize('announced', [False, True])
def test_both_kinds_of_clients_keep_one_contract(
  memory, clients, cohort, announced
):
  for data in (memory, clients):
    if announced:
      data.prefetch(np.array(cohort, np.int64))
    assert _rows(data, cohort) == _rows(memory, cohort)
    assert data.num_clients == 5
    np.testing.assert_array_equal(data.client_sizes, _SIZES)
    assert data.prototype.x.shape == (0, 2) and len(data.prototype.y) == 0
    np.testing.assert_array_equal(data.client(3)['y'], memory.client(3)['y'])


def test_announced_cohort_is_read_once_in_another_thread(clients, reader):
  clients.prefetch(np.array([3, 0]))
  clients.prefetch(np.array([2, 4]))  # The next round's, before this one's.
  _rows(clients, [0, 3])
  _rows(clients, [4, 2])
  assert reader.asked == [[0, 3], [2, 4]]
  assert reader.threads == [False, False]


def test_cohort_that_was_not_announced_is_read_at_once(clients, reader):
  clients.prefetch(np.array([3]))
  _rows(clients, [2])
  assert [2] in reader.asked
  assert reader.threads[reader.asked.index([2])]


def test_cohorts_that_never_come_are_forgotten(clients):
  for client in range(5):
    clients.prefetch(np.array([client]))
  assert len(clients._announced) <= 2


def test_failure_of_the_reader_comes_back(memory):
  def fail(clients):
    raise OSError('the disk is gone')

  data = streamed.StreamedClients(
    fail, client_sizes=_SIZES, prototype=memory.prototype
  )
  data.prefetch(np.array([0]))
  with pytest.raises(OSError, match='disk is gone'):
    data.gather(np.array([0]))
