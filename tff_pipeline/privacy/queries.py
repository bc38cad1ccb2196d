"""DP queries whose noise is a pure function of a key and the round.

TensorFlow Privacy's Gaussian queries draw noise from a stateful generator: a
replayed round would release a second, different value from the same cohort.
Here the key and a counter live in the query's state, so they are saved with
the checkpoint, and a replayed round releases the same values again.
"""

import collections
from typing import Any

import dp_accounting
import tensorflow as tf
import tensorflow_privacy as tfp


def derive_seed(key: tf.Tensor, *path: Any) -> tf.Tensor:
  """Returns the seed at the end of `path` below `key`; both int64[2].

  Different paths of one length give different, unrelated seeds: each step is
  a `stateless_fold_in`.
  """
  for step in path:
    key = tf.random.experimental.stateless_fold_in(key, tf.cast(step, tf.int64))
  return key


def add_gaussian_noise(
  value: Any, *, stddev: tf.Tensor, seed: tf.Tensor
) -> Any:
  """Adds independent N(0, stddev^2) noise to each entry of each tensor.

  Args:
    value: A structure of float tensors.
    stddev: Standard deviation, in the units of `value`.
    seed: int64[2]; tensor i of the flattened structure uses the seed derived
      from it by i, so that no two tensors share noise.

  Returns:
    The noised structure.
  """
  noised = [
    tensor
    + tf.random.stateless_normal(
      tf.shape(tensor),
      seed=derive_seed(seed, index),
      stddev=tf.cast(stddev, tensor.dtype),
      dtype=tensor.dtype,
    )
    for index, tensor in enumerate(tf.nest.flatten(value))
  ]
  return tf.nest.pack_sequence_as(value, noised)


def zero_if_non_finite(record: Any) -> tuple[Any, tf.Tensor]:
  """Returns the record, or zeros if any entry is not finite; and which.

  Must come before the norm is taken: clipping turns one infinite entry into
  undefined ones everywhere, and one such client would undo the model.
  """
  finite = tf.reduce_all(
    [tf.reduce_all(tf.math.is_finite(t)) for t in tf.nest.flatten(record)]
  )
  zeroed = tf.nest.map_structure(
    lambda t: tf.where(finite, t, tf.zeros_like(t)), record
  )
  return zeroed, finite


class KeyedGaussianSumQuery(tfp.SumAggregationDPQuery):
  """Clips each record's global L2 norm; adds keyed Gaussian noise to the sum.

  Formal guarantees: one application is the Gaussian mechanism with noise
  multiplier `stddev / l2_norm_clip` under addition or removal of one record,
  or its replacement by zero. (Replacing a record moves the sum by up to twice
  the clip norm.)
  """

  GlobalState = collections.namedtuple(
    'GlobalState', ['l2_norm_clip', 'stddev', 'key', 'num_releases']
  )

  def __init__(
    self, *, l2_norm_clip: float, stddev: float, key: tuple[int, int]
  ):
    """Initializes the query.

    Args:
      l2_norm_clip: Largest L2 norm of a record after clipping.
      stddev: Standard deviation of the noise on the sum.
      key: Two signed 64-bit integers that all noise derives from.
    """
    self._l2_norm_clip = l2_norm_clip
    self._stddev = stddev
    self._key = key

  def initial_global_state(self) -> Any:
    """Returns clip norm, stddev, key and the number of releases so far."""
    return self.GlobalState(
      tf.constant(self._l2_norm_clip, tf.float32),
      tf.constant(self._stddev, tf.float32),
      tf.constant(self._key, tf.int64),
      tf.constant(0, tf.int64),
    )

  def derive_sample_params(self, global_state: Any) -> Any:
    """Returns the clip norm."""
    return global_state.l2_norm_clip

  def preprocess_record(self, params: Any, record: Any) -> Any:
    """Returns the record clipped to norm `params`; zeros if not finite."""
    record, _ = zero_if_non_finite(record)
    clipped, _ = tf.clip_by_global_norm(tf.nest.flatten(record), params)
    return tf.nest.pack_sequence_as(record, clipped)

  def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
    """Returns the noised sum, the next state and the Gaussian event."""
    seed = derive_seed(global_state.key, global_state.num_releases)
    result = add_gaussian_noise(
      sample_state, stddev=global_state.stddev, seed=seed
    )
    event = dp_accounting.GaussianDpEvent(
      global_state.stddev / global_state.l2_norm_clip
    )
    next_state = global_state._replace(
      num_releases=global_state.num_releases + 1
    )
    return result, next_state, event

  def derive_metrics(self, global_state: Any) -> Any:
    """Returns the clip norm in force."""
    return collections.OrderedDict(clip_norm=global_state.l2_norm_clip)
