"""Laws that every partitioner keeps, and what is particular to each."""

import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import partition

_LABELS = np.random.default_rng(0).integers(0, 10, 500)

# What each partition needs beside the number of clients.
TABLE = {
  'iid': {},
  'dirichlet': {'concentration': 0.5},
  'label_dirichlet': {'concentration': 5.0},
  'shards': {'shards_per_client': 2},
  'label_count': {'labels_per_client': 2},
  'quantity_skew': {'size_sigma': 1.0},
  'feature_skew': {'transform': 'noise', 'transform_strength': 0.0},
}
each_partition = pytest.mark.parametrize('name', list(TABLE))


def deal(name, *, labels=_LABELS, seed=0, clients=7, x=None, **leaves):
  """Deals examples whose only feature is their row number."""
  if x is None:
    x = np.arange(len(labels), dtype=np.float32)
  task = config.Task(
    name='digits',
    partition=name,
    clients=clients,
    **{**TABLE[name], **leaves},
  )
  return partition.deal(client_data.Examples(x, labels), task=task, seed=seed)


def label_sets(data):
  return [set(np.unique(data.client(k)['y'])) for k in range(data.num_clients)]


def test_every_partition_is_in_the_table():
  assert set(TABLE) | {'natural', 'grouped'} == set(config.Partition)


@st.composite
def _pooled(draw):
  classes = draw(st.integers(1, 6))
  labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=60))
  return np.array(labels), draw(st.integers(1, 20)), draw(st.integers(0, 9))


@each_partition
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
@hypothesis.given(pooled=_pooled(), least=st.integers(0, 2))
def test_every_example_is_used_once_and_no_client_has_too_few(
  name, pooled, least
):
  labels, clients, seed = pooled
  given = {'labels': labels, 'seed': seed, 'clients': clients}
  try:
    data = deal(name, **given, min_examples=least)
  except validate.UsageError as error:
    hypothesis.event('refused')
    assert str(error).startswith('--task.')
    return
  hypothesis.event('dealt')
  assert data.num_clients == clients
  assert data.client_sizes.min() >= least
  rows = data.examples.x.astype(int)
  assert sorted(rows) == list(range(len(labels)))
  np.testing.assert_array_equal(data.examples.y, labels[rows])
  again = deal(name, **given, min_examples=least)
  np.testing.assert_array_equal(again.examples.x, data.examples.x)
  np.testing.assert_array_equal(again.offsets, data.offsets)


@each_partition
def test_another_seed_deals_otherwise(name):
  rows = [deal(name, seed=seed).examples.x for seed in (0, 1)]
  assert not np.array_equal(*rows)


@each_partition
def test_rows_of_a_client_are_not_in_the_order_of_the_file(name):
  # A client may not shuffle, and the file may be sorted by label.
  enough = {'labels_per_client': 4} if name == 'label_count' else {}
  data = deal(name, labels=np.sort(_LABELS), clients=3, **enough)
  for k in range(3):
    assert np.any(np.diff(data.client(k)['x']) < 0)
    assert np.any(np.diff(data.client(k)['y']) < 0)


@pytest.mark.parametrize('name', ['iid', 'dirichlet', 'feature_skew'])
@pytest.mark.parametrize('clients', [1, 7, 499, 500])
def test_sizes_differ_by_one_at_most(name, clients):
  sizes = deal(name, clients=clients).client_sizes
  assert set(sizes) <= {500 // clients, -(-500 // clients)}


@pytest.mark.parametrize('name', sorted(set(TABLE) - {'label_count'}))
def test_more_clients_than_examples_only_if_some_may_be_empty(name):
  with pytest.raises(validate.UsageError, match=r'^--task.clients: .*=0 allow'):
    deal(name, clients=501)


@pytest.mark.parametrize(
  'name', ['iid', 'dirichlet', 'label_dirichlet', 'quantity_skew']
)
def test_empty_clients_where_asked(name):
  data = deal(name, clients=510, min_examples=0)
  assert data.num_clients == 510 and data.client_sizes.min() == 0
  assert data.client_sizes.sum() == 500


def test_client_with_too_few_of_rare_labels_is_refused():
  labels = np.array([0] * 3 + [1] * 97)
  few = {'labels': labels, 'clients': 2, 'labels_per_client': 1}
  assert deal('label_count', **few, min_examples=3).client_sizes.min() == 3
  with pytest.raises(
    validate.UsageError, match='^--task.min_examples: expected at most 3, '
  ):
    deal('label_count', **few, min_examples=4)


def test_refuses_natural_clients_of_pooled_data():
  task = config.Task(name='digits')
  examples = client_data.Examples(np.arange(500), _LABELS)
  with pytest.raises(validate.UsageError, match='task.partition'):
    partition.deal(examples, task=task, seed=0)


@pytest.mark.parametrize(
  'name', ['dirichlet', 'label_dirichlet', 'shards', 'label_count']
)
@pytest.mark.parametrize(
  'labels',
  [np.zeros((500, 3), np.int32), np.linspace(0, 1, 500, dtype=np.float32)],
  ids=['rows', 'numbers'],
)
def test_refuses_labels_that_are_not_one_class(name, labels):
  with pytest.raises(validate.UsageError, match='^--task.partition: '):
    deal(name, labels=labels)


@each_partition
def test_mnist_for_6000_clients_takes_a_second(name):
  labels = np.random.default_rng(0).integers(0, 10, 60_000)
  started = time.process_time()
  # Of 60,000 examples in random proportions, some of 6,000 clients get none.
  some = {'min_examples': 0} if name == 'label_dirichlet' else {}
  data = deal(name, labels=labels, clients=6_000, **some)
  # Measured: at most 0.5 s. One draw an example took 1.7 s.
  assert time.process_time() - started < 1.4
  assert data.num_clients == 6_000
