import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import partition

_LABELS = np.random.default_rng(0).integers(0, 10, 500)


def _task(**leaves):
  return config.Task(name='digits', **leaves)


_IID = {'partition': 'iid', 'clients': 7}
_DIRICHLET = {'partition': 'dirichlet', 'clients': 7, 'concentration': 0.5}
_MANY = {'partition': 'dirichlet', 'clients': 50}


def _deal(seed=0, **leaves):
  examples = client_data.Examples(np.arange(500), _LABELS)
  return partition.deal(examples, task=_task(**leaves), seed=seed)


@pytest.mark.parametrize('leaves', [_IID, _DIRICHLET])
@pytest.mark.parametrize('clients', [1, 7, 499, 500])
def test_every_example_goes_to_one_client_and_none_is_empty(leaves, clients):
  data = _deal(**(leaves | {'clients': clients}))
  assert sorted(data.examples.x) == list(range(500))
  np.testing.assert_array_equal(data.examples.y, _LABELS[data.examples.x])
  assert data.num_clients == clients
  assert set(data.client_sizes) <= {500 // clients, -(-500 // clients)}


@pytest.mark.parametrize('leaves', [_IID, _DIRICHLET])
def test_seed_decides_the_partition(leaves):
  rows = [_deal(seed, **leaves).examples.x for seed in (0, 0, 1)]
  np.testing.assert_array_equal(rows[0], rows[1])
  assert not np.array_equal(rows[0], rows[2])


def _skew(data):
  """Mean share of a client's most frequent label."""
  shares = [
    np.bincount(data.client(i)['y']).max() / data.client_sizes[i]
    for i in range(data.num_clients)
  ]
  return np.mean(shares)


def test_concentration_runs_from_skewed_to_alike():
  skews = [
    _skew(_deal(**(_MANY | {'concentration': concentration})))
    for concentration in (1e-3, 1.0, 1e4)
  ]
  assert skews[0] > 0.8 > skews[1] > skews[2]
  iid = _skew(_deal(partition='iid', clients=50))
  assert skews[2] == pytest.approx(iid, abs=0.05)


@pytest.mark.parametrize('concentration', [1e-300, 1e-12, 1e12])
def test_extreme_concentrations(concentration):
  data = _deal(**(_DIRICHLET | {'concentration': concentration}))
  assert sorted(data.examples.x) == list(range(500))


def test_refuses_natural_clients_of_pooled_data():
  with pytest.raises(validate.UsageError, match='task.partition'):
    _deal(partition='natural')


@pytest.mark.parametrize('leaves', [_IID, _DIRICHLET])
def test_refuses_more_clients_than_examples(leaves):
  with pytest.raises(validate.UsageError, match='task.clients'):
    _deal(**(leaves | {'clients': 501}))
