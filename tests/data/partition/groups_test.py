"""Silos of whole clients; a silo alone."""

import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import partition


def _clients(sizes, *, first=0):
  total = sum(sizes)
  numbers = np.arange(first, first + total, dtype=np.int32)
  offsets = np.cumsum([0, *sizes], dtype=np.int64)
  return client_data.ClientData(client_data.Examples(numbers, numbers), offsets)


def _task(groups, **leaves):
  return config.Task(name='har', partition='grouped', clients=groups, **leaves)


def _rows(data):
  return [data.client(k)['x'].tolist() for k in range(data.num_clients)]


def test_whole_clients_go_together_in_their_order():
  train, test = partition.group(
    _clients([2, 1, 3, 0, 1]), _clients([1, 1, 2, 1, 0]), task=_task(2)
  )
  assert _rows(train) == [[0, 1, 2, 3, 4, 5], [6]]
  assert _rows(test) == [[0, 1, 2, 3], [4]]


def test_as_many_groups_as_clients_are_the_clients():
  clients = _clients([2, 1, 3])
  train, test = partition.group(clients, None, task=_task(3))
  assert _rows(train) == _rows(clients) and test is None


def test_too_many_or_empty_groups_are_refused():
  with pytest.raises(validate.UsageError, match='at most 3 groups'):
    partition.group(_clients([2, 1, 3]), None, task=_task(4))
  with pytest.raises(validate.UsageError, match='--task.min_examples: .* 0,'):
    partition.group(_clients([2, 0]), None, task=_task(2))
  train, _ = partition.group(
    _clients([2, 0]), None, task=_task(2, min_examples=0)
  )
  assert train.client_sizes.tolist() == [2, 0]


def test_pooled_data_has_no_clients_to_group():
  task = config.Task(name='digits', partition='grouped', clients=2)
  with pytest.raises(validate.UsageError, match='no clients of its own'):
    tasks.clients(tasks.load(task), task=task, seed=0)


def _har(**leaves):
  task = config.Task(name='har', source='stand_in', **leaves)
  return tasks.clients(tasks.load(task), task=task, seed=0)


def test_a_task_has_groups_and_one_of_them_can_be_alone():
  everybody, _ = _har()
  grouped, held_out = _har(partition='grouped', clients=3)
  assert grouped.num_clients == held_out.num_clients == 3
  sizes = everybody.client_sizes
  assert grouped.client_sizes.tolist() == [
    sizes[:4].sum(),
    sizes[4:7].sum(),
    sizes[7:].sum(),
  ]
  alone, own = _har(partition='grouped', clients=3, only_client=1)
  assert alone.num_clients == own.num_clients == 1
  np.testing.assert_array_equal(alone.client(0)['x'], grouped.client(1)['x'])
  np.testing.assert_array_equal(own.client(0)['y'], held_out.client(1)['y'])


def test_a_dealt_client_can_be_alone_too():
  task = config.Task(name='digits', partition='iid', clients=5)
  loaded = tasks.load(task)
  all_clients, _ = tasks.clients(loaded, task=task, seed=3)
  alone, _ = tasks.clients(
    loaded,
    task=config.Task(name='digits', partition='iid', clients=5, only_client=4),
    seed=3,
  )
  np.testing.assert_array_equal(alone.examples.x, all_clients.client(4)['x'])


def test_a_client_that_there_is_not_cannot_be_alone():
  with pytest.raises(validate.UsageError, match='below 10, the number of'):
    _har(only_client=10)


def test_a_lone_silo_is_not_pooled_with_the_others():
  task = config.Task(name='heart_disease', only_client=2)
  assert tasks.pooled(task) == task
