"""Optimizer leaves of the config -> `tff.learning.optimizers`, and schedules.

In round r = 1, 2, ..., with W warm-up rounds (0 if unset), T decay rounds and
decay factor f, the learning rate is `learning_rate` times

  r < W          r / W
  otherwise, with t = r - max(W, 1):
  constant       1
  inverse_sqrt   (1 + t/T)^-1/2
  exponential    f^(t/T)
  linear         1 - (1 - f) min(1, t/T)
  cosine         f + (1 - f) (1 + cos(pi min(1, t/T))) / 2

The server's optimizer counts rounds in its own state, the client work in its
process's state: both are in the checkpoint, so a resumed run continues at the
rate that it stopped at.
"""

from collections.abc import Callable
import math

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config

Rate = Callable[[tf.Tensor], tf.Tensor]
"""Round, 1-based, an integer scalar -> learning rate, float32."""

_BUILDERS = {
  config.Optimizer.SGD: tff.learning.optimizers.build_sgdm,
  config.Optimizer.ADAM: tff.learning.optimizers.build_adam,
  config.Optimizer.ADAGRAD: tff.learning.optimizers.build_adagrad,
  config.Optimizer.YOGI: tff.learning.optimizers.build_yogi,
}
# Leaf -> what TFF calls it.
_ARGUMENTS = {
  'learning_rate': 'learning_rate',
  'momentum': 'momentum',
  'beta_1': 'beta_1',
  'beta_2': 'beta_2',
  'epsilon': 'epsilon',
  'initial_accumulator': 'initial_preconditioner_value',
}


def build(
  record: config.Client | config.Server,
) -> tff.learning.optimizers.Optimizer:
  """Returns the optimizer; unset leaves take TFF's defaults.

  Its learning rate is that of the leaf: for a client, `rate` says what it is
  in each round; for the server, `scheduled` does both.
  """
  arguments = {
    argument: getattr(record, leaf)
    for leaf, argument in _ARGUMENTS.items()
    if getattr(record, leaf) is not None
  }
  return _BUILDERS[record.optimizer](**arguments)


def scheduled(record: config.Server) -> tff.learning.optimizers.Optimizer:
  """Returns the optimizer whose step number r, from 1 on, has the rate of r."""
  schedule = rate(record)
  if schedule is None:
    return build(record)
  return tff.learning.optimizers.schedule_learning_rate(
    build(record), lambda steps_before: schedule(steps_before + 1)
  )


def rate(record: config.Client | config.Server) -> Rate | None:
  """Returns the learning rate of each round; `None` if it never changes."""
  constant = record.decay is config.Decay.CONSTANT
  if constant and record.warmup_rounds is None:
    return None
  warmup = record.warmup_rounds or 0

  def learning_rate(round_num: tf.Tensor) -> tf.Tensor:
    number = tf.cast(round_num, tf.float32)
    after = tf.maximum(0.0, number - max(warmup, 1))
    factor = _decayed(record, after)
    if warmup:
      factor = tf.where(number < warmup, number / warmup, factor)
    return record.learning_rate * factor

  return learning_rate


def _decayed(
  record: config.Client | config.Server, after: tf.Tensor
) -> tf.Tensor:
  """Returns the factor so many rounds after the warm-up."""
  if record.decay is config.Decay.CONSTANT:
    return tf.ones_like(after)
  spent, final = after / record.decay_rounds, record.decay_factor
  if record.decay is config.Decay.INVERSE_SQRT:
    return tf.math.rsqrt(1.0 + spent)
  if record.decay is config.Decay.EXPONENTIAL:
    return tf.pow(final, spent)
  share = tf.minimum(1.0, spent)
  if record.decay is config.Decay.LINEAR:
    return 1.0 - (1.0 - final) * share
  return final + (1.0 - final) * (1.0 + tf.cos(math.pi * share)) / 2.0
