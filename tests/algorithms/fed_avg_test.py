"""The server optimizers of FedAvg: special cases; equality is in table_test."""

import dataclasses

import numpy as np
import pytest

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config


def _run(server, client=cohorts.CLIENT, some=cohorts.COHORTS):
  process = cohorts.build(config.Algorithm(), client=client, server=server)
  return cohorts.run(process, client=client, cohorts=some)


def test_fed_adam_without_memory_is_a_signed_step():
  """beta_1 = beta_2 = 0: w - rate * delta / (|delta| + epsilon)."""
  rate, epsilon = 0.05, 1e-3
  adam = config.Server(
    optimizer='adam',
    learning_rate=rate,
    beta_1=0.0,
    beta_2=0.0,
    epsilon=epsilon,
  )
  (ours, _), *_ = _run(adam, some=[[0, 2]])
  (averaged, _), *_ = _run(cohorts.SERVER, some=[[0, 2]])
  start = small_models.build(small_models.dense).initial_weights[0]
  for found, w, mean in zip(ours, start, averaged, strict=True):
    delta = w - mean
    expected = w - rate * delta / (np.abs(delta) + epsilon)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_fed_avg_m_without_momentum_is_fed_avg():
  plain = config.Server(learning_rate=1.0, momentum=0.0)
  cohorts.assert_equal(_run(plain), _run(cohorts.SERVER), tolerance=1e-6)


@pytest.mark.parametrize('side', ['client', 'server'])
def test_round_of_a_schedule_equals_a_plain_one_at_its_rate(side):
  """Linear warm-up of 2 rounds, then halving: rates 1/2, 1, 1/2 of it."""
  schedule = {
    'warmup_rounds': 2,
    'decay': 'exponential',
    'decay_rounds': 1,
    'decay_factor': 0.5,
  }
  records = {'client': cohorts.CLIENT, 'server': cohorts.SERVER}
  scheduled = records | {side: dataclasses.replace(records[side], **schedule)}
  for before, factor in enumerate((0.5, 1.0, 0.5)):
    some = [[]] * before + [[0, 2]]
    ours = _run(scheduled['server'], scheduled['client'], some)
    rate = factor * records[side].learning_rate
    plain = records | {
      side: dataclasses.replace(records[side], learning_rate=rate)
    }
    expected = _run(plain['server'], plain['client'], [[0, 2]])
    cohorts.assert_equal(ours[-1:], expected, tolerance=1e-6)
