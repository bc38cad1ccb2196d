"""What clients keep: sparse, versioned, and nobody else's."""

import collections
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.engines import client_store
from tff_pipeline.engines import state_channel


def _channel(size=3):
  state = collections.OrderedDict(
    vector=tf.TensorSpec([size], tf.float32), count=tf.TensorSpec([], tf.int64)
  )
  return state_channel.Channel(
    state_type=tff.types.tensorflow_to_type(state), path=('client_states',)
  )


def _rows(clients, size=3):
  clients = np.array(clients, np.int64)
  vectors = np.repeat(clients[:, np.newaxis], size, axis=1)
  return state_channel.Rows(clients, (vectors.astype(np.float32), 10 * clients))


def _assert_is(store, client, value):
  state = store.state(client)
  assert list(state) == ['vector', 'count']
  np.testing.assert_array_equal(state['vector'], np.full(3, value, np.float32))
  assert state['vector'].dtype == np.float32
  assert state['count'] == 10 * value
  assert state['count'].dtype == np.int64


def test_update_changes_who_took_part_and_nobody_else():
  store = client_store.Store(_channel())
  store.update(_rows([5, 2]), 1)
  store.update(_rows([]), 2)
  before = store.leaves(2)[0].copy()
  store.update(_rows([7, 5]), 3)
  assert (store.version, store.clients) == (3, [2, 5, 7])
  for client in (2, 5, 7):
    _assert_is(store, client, client)
  np.testing.assert_array_equal(store.leaves(2)[0], before)
  _assert_is(store, 3, 0)
  assert store.num_participants == 3  # Asking does not make an entry.


def test_rows_come_in_the_order_asked_for():
  store = client_store.Store(_channel())
  store.update(_rows([1, 2, 3]), 1)
  vectors, counts = store.rows(np.array([3, 8, 1]))
  np.testing.assert_array_equal(counts, [30, 0, 10])
  np.testing.assert_array_equal(vectors[:, 0], [3, 0, 1])
  vectors[:] = 99  # They are copies.
  _assert_is(store, 3, 3)
  assert [leaf.shape for leaf in store.rows(np.array([], np.int64))] == [
    (0, 3),
    (0,),
  ]


def test_rows_of_the_round_can_be_changed_afterwards():
  store = client_store.Store(_channel())
  rows = _rows([1])
  store.update(rows, 1)
  rows.leaves[0][:] = 99
  _assert_is(store, 1, 1)


def test_initial_state_is_given_once_and_copied():
  initial = {'vector': np.full(3, 4, np.float32), 'count': np.int64(40)}
  store = client_store.Store(_channel(), initial=initial)
  initial['vector'][:] = 0
  _assert_is(store, 123, 4)
  store.update(_rows([1]), 1)
  store.reset()
  _assert_is(store, 1, 4)


@pytest.mark.parametrize(
  'initial',
  [
    {'vector': np.zeros(3), 'count': np.int64(0)},
    {'vector': np.zeros(4, np.float32), 'count': np.int64(0)},
    {'vector': np.zeros(3, np.float32)},
  ],
)
def test_initial_state_of_another_type_is_refused(initial):
  with pytest.raises(ValueError, match='Expected client states'):
    client_store.Store(_channel(), initial=initial)


@pytest.mark.parametrize('round_num', [0, 1, 3])
def test_states_of_another_round_are_refused(round_num):
  store = client_store.Store(_channel())
  store.update(_rows([1]), 1)
  with pytest.raises(ValueError, match='states of round 2, found'):
    store.update(_rows([2]), round_num)
  assert (store.version, store.clients) == (1, [1])


@pytest.mark.parametrize('clients', [[1, 1], [1, 4]])
def test_states_of_strangers_or_twins_are_refused(clients):
  store = client_store.Store(_channel())
  with pytest.raises(ValueError, match='cohort at most once'):
    store.update(_rows(clients), 1, cohort=[1, 2, 3])
  assert (store.version, store.clients) == (0, [])


def test_client_that_does_not_come_back_keeps_its_state():
  store = client_store.Store(_channel())
  store.update(_rows([1, 2]), 1)
  store.update(_rows([2]), 2, cohort=[1, 2])
  _assert_is(store, 1, 1)


def test_changes_are_told_until_they_are_saved():
  store = client_store.Store(_channel())
  store.update(_rows([1, 2]), 1)
  store.update(_rows([2, 3]), 2)
  assert store.changed == {1, 2, 3}
  store.mark_saved()
  store.update(_rows([3]), 3)
  assert store.changed == {3}


def test_memory_follows_participants_not_the_population():
  # Dense states of these 100,000 clients would take 4 GB; of the 500 that take
  # part, 20 MB.
  size, cohort, rounds = 10_000, 50, 20
  rng = np.random.default_rng(0)
  tracemalloc.start()
  store = client_store.Store(_channel(size))
  for round_num in range(1, rounds + 1):
    clients = rng.choice(500, cohort, replace=False) * 200
    store.rows(clients)
    store.update(_rows(clients, size), round_num)
  held, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert max(store.clients) > 90_000
  states = 4 * size * store.num_participants
  assert states < held < 1.1 * states
  assert peak < held + 5 * 4 * size * cohort
