"""MimeLite against the paper in NumPy, and its special cases."""

import dataclasses

import numpy as np

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config

_ALGORITHM = config.Algorithm(name='mime_lite', weighting='num_examples')


def test_without_momentum_it_is_fed_avg():
  ours = cohorts.run(cohorts.build(_ALGORITHM))
  fed_avg = cohorts.run(
    cohorts.build(config.Algorithm(weighting='num_examples'))
  )
  cohorts.assert_equal(ours, fed_avg, tolerance=1e-6)


def test_equals_the_papers_algorithm_with_momentum():
  """Algorithm 1 with U(g, m) = beta m + g, m <- beta m + mean gradient."""
  client = dataclasses.replace(cohorts.CLIENT, momentum=0.6)
  some = [[0, 2, 5], [1, 3], [4]]
  ours = cohorts.run(
    cohorts.build(
      dataclasses.replace(_ALGORITHM, weighting='uniform'),
      client=client,
      factory=cohorts.linear,
    ),
    client=client,
    cohorts=some,
  )
  weights = [
    np.array(w, np.float64)
    for w in small_models.build(cohorts.linear).initial_weights[0]
  ]
  momentum = [np.zeros_like(w) for w in weights]
  for cohort, (found, _) in zip(some, ours, strict=True):
    data = cohorts.numpy_clients(cohorts.data(), cohort)
    trained, gradients = [], []
    for x, y in data:
      drift = {id(w): 0.6 * m for w, m in zip(weights, momentum, strict=True)}
      trained.append(
        cohorts.numpy_steps(
          weights, x, y, client=client, drift=lambda w, s, d=drift: d[id(s)]
        )
      )
      gradients.append(cohorts.numpy_gradient(weights, x, y)[0])
    weights = [np.mean(t, axis=0) for t in zip(*trained, strict=True)]
    momentum = [
      0.6 * m + np.mean(g, axis=0)
      for m, *g in zip(momentum, *gradients, strict=True)
    ]
    for one, other in zip(found, weights, strict=True):
      np.testing.assert_allclose(one, other, atol=3e-6, rtol=0)


def test_scheduled_rate_is_the_rounds_own():
  """Round 2 of a schedule that halves equals round 1 at half the rate."""
  client = dataclasses.replace(
    cohorts.CLIENT, decay='exponential', decay_rounds=1, decay_factor=0.5
  )
  half = dataclasses.replace(cohorts.CLIENT, learning_rate=0.05)
  scheduled = cohorts.run(
    cohorts.build(_ALGORITHM, client=client), cohorts=[[], [2]]
  )
  plain = cohorts.run(cohorts.build(_ALGORITHM, client=half), cohorts=[[2]])
  cohorts.assert_equal(scheduled[1:], plain, tolerance=1e-6)
