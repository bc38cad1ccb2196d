"""q-FedAvg against Algorithm 2 of the paper, written down in NumPy."""

import numpy as np
import pytest

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config


def _algorithm(fairness):
  return config.Algorithm(name='q_fed_avg', fairness=fairness)


def _algorithm_2(weights, clients, *, q, client):
  """One round of Li et al. 2020, Algorithm 2, with L = 1 / learning rate."""
  smoothness = 1 / client.learning_rate
  deltas, hs = [], []
  for x, y in clients:
    _, loss = cohorts.numpy_gradient(weights, x, y)
    trained = cohorts.numpy_steps(weights, x, y, client=client)
    dw = [smoothness * (w - t) for w, t in zip(weights, trained, strict=True)]
    deltas.append([loss**q * part for part in dw])
    norm_squared = sum(np.sum(part**2) for part in dw)
    hs.append(q * loss ** (q - 1) * norm_squared + smoothness * loss**q)
  return [
    w - sum(parts) / sum(hs) for w, *parts in zip(weights, *deltas, strict=True)
  ]


@pytest.mark.parametrize('fairness', [0.0, 0.5, 1.0, 4.0])
def test_equals_the_papers_algorithm(fairness):
  some = [[0, 2, 5], [1, 3]]
  ours = cohorts.run(
    cohorts.build(_algorithm(fairness), factory=cohorts.linear), cohorts=some
  )
  weights = cohorts.numpy_start()
  for cohort, (found, _) in zip(some, ours, strict=True):
    weights = _algorithm_2(
      weights,
      cohorts.numpy_clients(cohorts.data(), cohort),
      q=fairness,
      client=cohorts.CLIENT,
    )
    cohorts.assert_close(found, weights, tolerance=3e-6)


def test_zero_fairness_is_uniform_fed_avg():
  ours = cohorts.run(cohorts.build(_algorithm(0.0)))
  fed_avg = cohorts.run(cohorts.build(config.Algorithm()))
  cohorts.assert_equal(ours, fed_avg, tolerance=0.0)


def test_more_fairness_follows_the_worse_client():
  """With a large q the round is nearly that of the client with most loss."""
  clients = cohorts.data(scale=3.0)
  model = small_models.build(cohorts.linear)
  losses = [
    cohorts.numpy_gradient(model.initial_weights[0], x, y)[1]
    for x, y in cohorts.numpy_clients(clients, [0, 5])
  ]
  worse = [0, 5][int(np.argmax(losses))]

  def move(fairness, cohort):
    process = cohorts.build(_algorithm(fairness), factory=cohorts.linear)
    (found, _), *_ = cohorts.run(process, clients=clients, cohorts=[cohort])
    moved = found[0] - model.initial_weights[0][0]
    return moved / np.linalg.norm(moved)

  alone = move(0.0, [worse])
  alike = [np.sum(alone * move(q, [0, 5])) for q in (0.0, 2.0, 20.0)]
  assert alike == sorted(alike)
  assert alike[-1] > 0.999
