"""FedProx against the paper's update in NumPy, and its special case."""

import numpy as np
import tensorflow_federated as tff

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline.algorithms import fed_prox
from tff_pipeline.algorithms import table
from tff_pipeline.client_work import protection as protections

sgd = tff.learning.optimizers.build_sgdm


def _build(strength, factory=small_models.dense):
  return fed_prox.build(
    small_models.build(factory),
    proximal_strength=strength,
    client_optimizer=sgd(0.1),
    server_optimizer=sgd(1.0),
    schedule=table.schedule(cohorts.CLIENT),
    protection=protections.UNPROTECTED,
    aggregator=tff.aggregators.MeanFactory(no_nan_division=True),
    weighting=config.Weighting.UNIFORM,
  )


def test_equals_the_papers_update():
  strength = 0.7
  cohort = [0, 2, 5]
  (ours, _), *_ = cohorts.run(
    _build(strength, cohorts.linear), cohorts=[cohort]
  )
  start = small_models.build(cohorts.linear).initial_weights[0]
  trained = [
    cohorts.numpy_steps(
      start,
      x,
      y,
      client=cohorts.CLIENT,
      drift=lambda w, s: strength * (w - s),
    )
    for x, y in cohorts.numpy_clients(cohorts.data(), cohort)
  ]
  for index, found in enumerate(ours):
    expected = np.mean([weights[index] for weights in trained], axis=0)
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def test_strength_zero_is_fed_avg():
  fed_avg = cohorts.run(cohorts.build(config.Algorithm()))
  cohorts.assert_equal(cohorts.run(_build(0.0)), fed_avg, tolerance=0.0)


def test_clients_stay_nearer_the_stronger_it_is():
  start = small_models.build(small_models.dense).initial_weights[0]

  def distance(strength):
    (found, _), *_ = cohorts.run(_build(strength), cohorts=[[2]])
    return sum(np.sum((a - b) ** 2) for a, b in zip(found, start, strict=True))

  distances = [distance(strength) for strength in (0.0, 1.0, 5.0)]
  assert distances == sorted(distances, reverse=True)
  assert distances[2] < 0.5 * distances[0]


def test_tffs_stock_builder_pulls_the_wrong_way():
  """TFF 0.87 adds strength * (start - current) to the gradient.

  (`templates/proximal_client_work.py`: `lambda x, y: regularizer * (y - x)`
  over current and initial weights.) If this fails, TFF has been mended, and
  its builder can stand in the table of `table_test`.
  """
  stock = tff.learning.algorithms.build_unweighted_fed_prox(
    cohorts.stock_model, 0.3, sgd(0.1), sgd(1.0)
  )
  some = [c for c in cohorts.COHORTS if c]
  theirs = cohorts.run(stock, cohorts=some)
  cohorts.assert_equal(cohorts.run(_build(-0.3), cohorts=some), theirs)
