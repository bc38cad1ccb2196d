"""Learning rates by round: the formulas of `optimizers`, by hand."""

import math

import pytest
import tensorflow as tf

from tff_pipeline import config
from tff_pipeline import optimizers

_DECAYING = {'decay_rounds': 4, 'decay_factor': 0.2}

# Decay leaves, round -> factor, from the definitions at W = 0 and W = 5.
CASES = {
  'warm-up alone': ({'warmup_rounds': 5}, {1: 0.2, 4: 0.8, 5: 1.0, 50: 1.0}),
  'warm-up of one round': ({'warmup_rounds': 1}, {1: 1.0, 2: 1.0}),
  'inverse_sqrt': (
    {'decay': 'inverse_sqrt', 'decay_rounds': 4},
    {1: 1.0, 5: 0.5**0.5, 13: 0.5},
  ),
  'exponential': (
    {'decay': 'exponential', **_DECAYING},
    {1: 1.0, 3: 0.2**0.5, 5: 0.2, 9: 0.04},
  ),
  'linear': (
    {'decay': 'linear', **_DECAYING},
    {1: 1.0, 2: 0.8, 3: 0.6, 5: 0.2, 6: 0.2, 100: 0.2},
  ),
  'cosine': (
    {'decay': 'cosine', **_DECAYING},
    {1: 1.0, 2: 0.6 + 0.4 * math.cos(math.pi / 4), 3: 0.6, 5: 0.2, 99: 0.2},
  ),
  'cosine after warm-up': (
    {'decay': 'cosine', **_DECAYING, 'warmup_rounds': 5},
    {1: 0.2, 5: 1.0, 7: 0.6, 9: 0.2},
  ),
}


@pytest.mark.parametrize('leaves, factors', CASES.values(), ids=CASES)
@pytest.mark.parametrize('record', [config.Client, config.Server])
def test_rate_is_the_formula(record, leaves, factors):
  sizes = {'batch_size': 1} if record is config.Client else {}
  built = record(learning_rate=0.3, **sizes, **leaves)
  schedule = optimizers.rate(built)
  for round_num, factor in factors.items():
    found = float(schedule(tf.constant(round_num, tf.int64)))
    assert found == pytest.approx(0.3 * factor, rel=1e-5), round_num


def test_no_schedule_is_none():
  assert optimizers.rate(config.Server(learning_rate=1.0)) is None


def test_server_step_r_has_the_rate_of_round_r():
  server = config.Server(
    learning_rate=1.0, warmup_rounds=2, decay='linear', **_DECAYING
  )
  optimizer = optimizers.scheduled(server)
  spec = tf.TensorSpec([], tf.float32)
  state, weight = optimizer.initialize(spec), tf.constant(0.0)
  steps = []
  for _ in range(4):
    state, moved = optimizer.next(state, weight, tf.constant(1.0))
    steps.append(float(weight - moved))
    weight = moved
  assert steps == pytest.approx([0.5, 1.0, 0.8, 0.6], rel=1e-5)


def _first_step(record):
  """Returns how far one gradient of 0.5 moves a weight."""
  optimizer = optimizers.build(record)
  state = optimizer.initialize(tf.TensorSpec([], tf.float32))
  _, moved = optimizer.next(state, tf.constant(0.0), tf.constant(0.5))
  return -float(moved)


@pytest.mark.parametrize('start', [0.0, 0.3, None])
def test_the_sum_of_squares_starts_from_its_leaf(start):
  leaves = {'learning_rate': 2.0, 'initial_accumulator': start}
  adagrad = config.Server(optimizer='adagrad', epsilon=0.01, **leaves)
  total = (0.1 if start is None else start) + 0.25
  assert _first_step(adagrad) == pytest.approx(1.0 / (total + 0.01) ** 0.5)
  # Zaheer et al. 2018: v - (1 - beta_2) sign(v - g^2) g^2, with TFF's
  # correction of both moments.
  yogi = config.Server(
    optimizer='yogi', beta_1=0.0, beta_2=0.9, epsilon=0.01, **leaves
  )
  before = 1e-6 if start is None else start
  total = before - 0.1 * math.copysign(0.25, before - 0.25)
  expected = 1.0 * 0.1**0.5 / (total**0.5 + 0.01)
  assert _first_step(yogi) == pytest.approx(expected, rel=1e-4)
