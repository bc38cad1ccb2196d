"""FedDyn against the paper's algorithm in NumPy, and its special cases."""

import numpy as np
import pytest

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline.algorithms import fed_dyn

_STRENGTH = 0.4
_ALGORITHM = config.Algorithm(name='fed_dyn', regularization_strength=_STRENGTH)


def _build(**settings):
  return cohorts.build(_ALGORITHM, factory=cohorts.linear, **settings)


def _reference(some, *, population=6):
  """Algorithm 1 as printed, with h; returns weights by round, h and the g_k."""
  weights = cohorts.numpy_start()
  server = [np.zeros_like(w) for w in weights]
  found, gradients = [], {}
  for cohort in some:
    trained = []
    data = cohorts.numpy_clients(cohorts.data(), cohort)
    for index, (x, y) in zip(cohort, data, strict=True):
      own = gradients.get(index, [np.zeros_like(w) for w in weights])
      linear = {id(w): g for w, g in zip(weights, own, strict=True)}
      local = cohorts.numpy_steps(
        weights,
        x,
        y,
        client=cohorts.CLIENT,
        drift=lambda w, s, g=linear: _STRENGTH * (w - s) - g[id(s)],
      )
      trained.append(local)
      gradients[index] = [
        g - _STRENGTH * (t - w)
        for g, t, w in zip(own, local, weights, strict=True)
      ]
    if cohort:
      server = [
        h - _STRENGTH / population * np.sum([t - w for t in ts], axis=0)
        for h, w, *ts in zip(server, weights, *trained, strict=True)
      ]
      weights = [
        np.mean(ts, axis=0) - h / _STRENGTH
        for h, *ts in zip(server, *trained, strict=True)
      ]
    found.append(weights)
  return found, server, gradients


@pytest.fixture(scope='module')
def whole():
  return cohorts.run_and_keep(_build(), cohorts=cohorts.RETURNING)


def _assert_equals_the_paper(run, expected):
  rounds, state, store = run
  expected, server, gradients = expected
  for (found, _), wanted in zip(rounds, expected, strict=True):
    cohorts.assert_close(found, wanted)
  assert store.clients == sorted(gradients) == [0, 1, 2, 3, 4]
  for index, wanted in gradients.items():
    cohorts.assert_close(store.state(index)[fed_dyn.GRADIENT], wanted)
  _, total = state.aggregator
  cohorts.assert_close([_STRENGTH * t for t in total], server)


def test_equals_the_papers_algorithm(whole):
  """Unequal clients, cohorts of many sizes, weights and all states."""
  expected = _reference(cohorts.RETURNING)
  _assert_equals_the_paper(whole, expected)
  _, server, gradients = expected
  # h is the mean of the g_k of all clients, as in the paper.
  assert max(np.abs(h).max() for h in server) > 1e-2
  for h, *parts in zip(server, *gradients.values(), strict=True):
    np.testing.assert_allclose(h, np.sum(parts, axis=0) / 6, atol=1e-12)


@pytest.mark.slow
def test_equals_the_papers_algorithm_of_a_larger_population(whole):
  run = cohorts.run_and_keep(_build(population=60), cohorts=cohorts.RETURNING)
  _assert_equals_the_paper(run, _reference(cohorts.RETURNING, population=60))
  assert np.abs(run[0][-1][0][0] - whole[0][-1][0][0]).max() > 1e-3


def test_first_round_is_a_longer_step_of_fed_prox(whole):
  prox = config.Algorithm(name='fed_prox', proximal_strength=_STRENGTH)
  ours, _ = whole[0][0]
  [(theirs, _)] = cohorts.run(
    cohorts.build(prox, factory=cohorts.linear), cohorts=cohorts.RETURNING[:1]
  )
  start = small_models.build(cohorts.linear).initial_weights[0]
  for w, one, other in zip(start, ours, theirs, strict=True):
    np.testing.assert_allclose(w - one, 1.5 * (w - other), atol=5e-6)


@pytest.mark.slow
def test_rejected_client_keeps_its_gradient_and_does_not_count():
  data = cohorts.data()
  data.examples.x[data.offsets[2] : data.offsets[3]] = np.inf
  rounds, _, kept = cohorts.run_and_keep(
    _build(), clients=data, cohorts=[[0, 2]]
  )
  alone = cohorts.run(_build(), cohorts=[[0]])
  assert rounds[0][1]['client_work']['train']['rejected_updates'] == 1
  cohorts.assert_equal(rounds, alone, tolerance=1e-6)
  assert all(np.all(g == 0) for g in kept.state(2)[fed_dyn.GRADIENT])
