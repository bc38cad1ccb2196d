"""Robust statistics against NumPy, their special cases, and bad updates."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import robust

_TYPE = tff.types.tensorflow_to_type(
  (tf.TensorSpec([2, 3], tf.float32), tf.TensorSpec([4], tf.float32))
)


def _rows(size, seed=0):
  rng = np.random.default_rng(seed)
  return [
    rng.normal(size=(size, *shape)).astype(np.float32)
    for shape in ((2, 3), (4,))
  ]


def _numpy_geometric_median(rows, weights, steps):
  flat = np.concatenate([r.reshape(len(r), -1) for r in rows], 1)
  flat = flat.astype(np.float64)
  point = np.average(flat, axis=0, weights=weights)
  for _ in range(steps):
    distances = np.linalg.norm(flat - point, axis=1)
    point = np.average(
      flat, axis=0, weights=weights / np.maximum(1e-6, distances)
    )
  return point


@pytest.mark.parametrize('size', [1, 2, 5, 8])
def test_median_is_numpys(size):
  rows = _rows(size)
  for found, row in zip(
    robust.median(rows, tf.ones([size])), rows, strict=True
  ):
    np.testing.assert_allclose(found, np.median(row, axis=0), atol=1e-6)


@pytest.mark.parametrize(
  'share, size, cut', [(0.0, 5, 0), (0.2, 5, 1), (0.3, 10, 3), (0.49, 3, 1)]
)
def test_trimmed_mean_leaves_out_both_ends(share, size, cut):
  rows = _rows(size)
  found = robust.trimmed_mean(share)(rows, tf.ones([size]))
  for one, row in zip(found, rows, strict=True):
    expected = np.sort(row, axis=0)[cut : size - cut].mean(axis=0)
    np.testing.assert_allclose(one, expected, atol=1e-6)


def test_geometric_median_is_the_papers_iteration():
  rows, weights = _rows(6), np.array([1, 2, 3, 1, 1, 5], np.float32)
  for steps in (0, 1, 4):
    found = robust.geometric_median(steps)(
      list(map(tf.constant, rows)), tf.constant(weights)
    )
    flat = np.concatenate([np.ravel(t) for t in found])
    expected = _numpy_geometric_median(rows, weights, steps)
    np.testing.assert_allclose(flat, expected, atol=1e-5)


def test_geometric_median_nearly_minimizes_the_sum_of_distances():
  rows = _rows(7)
  flat = np.concatenate([r.reshape(7, -1) for r in rows], 1)
  found = robust.geometric_median(50)(
    list(map(tf.constant, rows)), tf.ones([7])
  )
  point = np.concatenate([np.ravel(t) for t in found])

  def total(v):
    return np.linalg.norm(flat - v, axis=1).sum()

  rng = np.random.default_rng(1)
  nearby = [point + 0.05 * rng.normal(size=10) for _ in range(50)]
  assert all(total(point) < total(v) for v in nearby)
  assert total(point) < total(flat.mean(axis=0))


def _algorithm(name):
  leaves = {
    'clipped_mean': {'norm_limit': 1.0},
    'zeroed_mean': {'norm_limit': 10.0},
    'trimmed_mean': {'trimmed_share': 0.2},
    'geometric_median': {'weiszfeld_steps': 8},
  }
  return config.Algorithm(aggregator=name, **leaves.get(name, {}))


_ROBUST = [a for a in config.Aggregator if a is not config.Aggregator.MEAN]


@pytest.fixture(scope='module', params=_ROBUST)
def process(request):
  factory = robust.build(_algorithm(request.param))
  return factory.create(_TYPE, tff.TensorType(np.float32))


def _aggregate(process, rows, weights):
  values = [tuple(parts) for parts in zip(*rows, strict=True)]
  output = process.next(process.initialize(), values, list(weights))
  return output.result, output.measurements


@pytest.mark.usefixtures('on_tff_runtime')
def test_one_wild_update_moves_the_result_little(process):
  honest = _rows(9)
  wild = [np.concatenate([r, np.full_like(r[:1], 1e6)]) for r in honest]
  quiet, _ = _aggregate(process, honest, np.ones(9, np.float32))
  loud, _ = _aggregate(process, wild, np.ones(10, np.float32))
  for one, other in zip(quiet, loud, strict=True):
    # The honest updates are of size 1: a mean would move by 1e5.
    np.testing.assert_allclose(one, other, atol=1.5)


@pytest.mark.usefixtures('on_tff_runtime')
def test_nobody_gives_zero(process):
  found, _ = _aggregate(process, [r[:0] for r in _rows(1)], [])
  assert all(np.all(t == 0) for t in found)


@pytest.mark.usefixtures('on_tff_runtime')
@pytest.mark.parametrize('name', ['median', 'geometric_median'])
def test_rejected_and_undefined_updates_do_not_count(name):
  factory = robust.build(_algorithm(name))
  process = factory.create(_TYPE, tff.TensorType(np.float32))
  rows = _rows(6)
  weights = np.array([1, 1, 0, 1, 1, 1], np.float32)
  rows[1][4, 2] = np.inf
  found, measured = _aggregate(process, rows, weights)
  good = [0, 1, 3, 5]
  expected, _ = _aggregate(process, [r[good] for r in rows], weights[good])
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)
  assert measured['left_out'] == 2
