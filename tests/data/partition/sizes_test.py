import numpy as np
import pytest

from tests.data.partition import dealing_test
from tff_pipeline.data.partition import sizes

deal = dealing_test.deal


@pytest.mark.parametrize('sigma', [0.5, 1.0, 2.0])
def test_sizes_are_log_normal(sigma):
  rng = np.random.default_rng(0)
  parts = sizes.quantity_skew(
    10_000_000, clients=4_000, sigma=sigma, least=0, rng=rng
  )
  logs = np.log(np.maximum([len(part) for part in parts], 1))
  # Standard error of a deviation: sigma / sqrt(2 n) = 0.011 sigma.
  assert np.std(logs) == pytest.approx(sigma, rel=0.06)


def test_without_spread_sizes_are_even():
  found = deal('quantity_skew', size_sigma=0.0, clients=7).client_sizes
  assert set(found) == {71, 72}


def test_least_is_kept_under_any_skew():
  found = deal(
    'quantity_skew', size_sigma=10.0, clients=50, min_examples=3
  ).client_sizes
  assert found.min() == 3 and found.max() > 300


def test_labels_are_not_skewed():
  data = deal('quantity_skew', clients=4, size_sigma=0.3)
  for k in range(4):
    shares = np.bincount(data.client(k)['y'], minlength=10)
    assert shares.min() > 0
