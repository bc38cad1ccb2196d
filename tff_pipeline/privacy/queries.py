"""DP queries whose noise is a pure function of a key and the round.

TensorFlow Privacy's Gaussian queries draw noise from a stateful generator: a
replayed round would release a second, different value from the same cohort.
Here the key and a counter live in the query's state, so they are saved with
the checkpoint, and a replayed round releases the same values again.

Noise follows the path (release, part, tensor) below the key: part 0 is the sum
of the records, part 1 the count of unclipped ones.

The sample parameters of both queries are the clip norm in force.
"""

import collections
from typing import Any

import dp_accounting
import tensorflow as tf
import tensorflow_privacy as tfp

from tff_pipeline import keyed_noise

_SUM = 0
_COUNT = 1
# Half the distance between the two values of an indicator: the most that one
# record can move the count of the indicators shifted to plus or minus a half.
_COUNT_SENSITIVITY = 0.5


class KeyedGaussianSumQuery(tfp.SumAggregationDPQuery):
  """Clips each record; adds keyed Gaussian noise to the sum.

  Formal guarantees: one application is the Gaussian mechanism with noise
  multiplier `stddev / l2_norm_clip` under addition or removal of one record,
  or its replacement by zero. (Replacing a record moves the sum by up to twice
  the clip norm.) A record that is not finite counts as zero.
  """

  GlobalState = collections.namedtuple(
    'GlobalState', ['l2_norm_clip', 'stddev', 'key', 'num_releases']
  )

  def __init__(
    self,
    *,
    l2_norm_clip: float,
    stddev: float,
    key: tuple[int, int],
    clip: keyed_noise.Clip = keyed_noise.clip,
  ):
    """Initializes the query.

    Args:
      l2_norm_clip: Largest L2 norm of a record after clipping.
      stddev: Standard deviation of the noise on the sum.
      key: Two signed 64-bit integers that all noise derives from.
      clip: How a record is clipped.
    """
    self.clip = clip
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
    clipped, _ = self.clip(record, params)
    return clipped

  def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
    """Returns the noised sum, the next state and the Gaussian event."""
    result = keyed_noise.add_gaussian_noise(
      sample_state,
      stddev=global_state.stddev,
      seed=keyed_noise.derive_seed(
        global_state.key, global_state.num_releases, _SUM
      ),
    )
    event = dp_accounting.GaussianDpEvent(
      global_state.stddev / global_state.l2_norm_clip
    )
    next_state = global_state._replace(
      num_releases=global_state.num_releases + 1
    )
    return result, next_state, event

  def derive_metrics(self, global_state: Any) -> Any:
    """Returns the clip norm of the next release."""
    return collections.OrderedDict(clip_norm=global_state.l2_norm_clip)

  def noise_stddev(self, global_state: Any) -> Any:
    """Returns the standard deviation of the noise on the next sum."""
    return global_state.stddev


class KeyedAdaptiveClipSumQuery(tfp.SumAggregationDPQuery):
  """A keyed Gaussian sum whose clip norm follows a quantile of the norms.

  Andrew, Thakkar, McMahan, Ramaswamy, "Differentially private learning with
  adaptive clipping", NeurIPS 2021 (arXiv:1905.03871), Algorithm 1. With clip
  norm C, b_i = 1 where the norm of record i is at most C, and m records
  expected:

    sum:    sum_i clip(record_i, C) + N(0, (z_sum C)^2 I)
    share:  b = (sum_i (b_i - 1/2) + N(0, count_stddev^2)) / m + 1/2, in [0, 1]
    next:   C <- C exp(-learning_rate (b - target_quantile))

  Formal guarantees: both releases of one application together are the Gaussian
  mechanism with noise multiplier (z_sum^-2 + (2 count_stddev)^-2)^-1/2 under
  addition or removal of one record; also under its replacement by a null
  record that adds nothing to either sum. (Replacement by the record zero is
  weaker for the count: it moves by one, from -1/2 to +1/2.) A record that is
  not finite counts as zero, in the sum and in its norm.
  """

  GlobalState = collections.namedtuple(
    'GlobalState', ['l2_norm_clip', 'key', 'num_releases']
  )
  SampleState = collections.namedtuple('SampleState', ['sum', 'unclipped'])

  def __init__(
    self,
    *,
    initial_l2_norm_clip: float,
    sum_noise_multiplier: float,
    count_stddev: float,
    target_quantile: float,
    learning_rate: float,
    expected_records: float,
    key: tuple[int, int],
    clip: keyed_noise.Clip = keyed_noise.clip,
  ):
    """Initializes the query.

    Args:
      initial_l2_norm_clip: The clip norm of the first release.
      sum_noise_multiplier: Noise standard deviation on the sum, over the clip
        norm in force.
      count_stddev: Noise standard deviation on the count of unclipped records.
      target_quantile: Share of records that should be unclipped.
      learning_rate: On the logarithm of the clip norm.
      expected_records: What the count is divided by; public.
      key: Two signed 64-bit integers that all noise derives from.
      clip: How a record is clipped; its second result is the norm whose
        quantile the clip norm follows.
    """
    self.clip = clip
    self._initial_l2_norm_clip = initial_l2_norm_clip
    self._sum_noise_multiplier = sum_noise_multiplier
    self._count_stddev = count_stddev
    self._target_quantile = target_quantile
    self._learning_rate = learning_rate
    self._expected_records = expected_records
    self._key = key

  def initial_global_state(self) -> Any:
    """Returns clip norm, key and the number of releases so far."""
    return self.GlobalState(
      tf.constant(self._initial_l2_norm_clip, tf.float32),
      tf.constant(self._key, tf.int64),
      tf.constant(0, tf.int64),
    )

  def derive_sample_params(self, global_state: Any) -> Any:
    """Returns the clip norm."""
    return global_state.l2_norm_clip

  def initial_sample_state(self, template: Any) -> Any:
    """Returns the sums of no records."""
    return self.SampleState(
      super().initial_sample_state(template), tf.constant(0.0)
    )

  def preprocess_record(self, params: Any, record: Any) -> Any:
    """Returns the clipped record, and 1/2 if it was within the norm or -1/2."""
    clipped, norm = self.clip(record, params)
    within = tf.cast(norm <= params, tf.float32)
    return self.SampleState(clipped, within - _COUNT_SENSITIVITY)

  def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
    """Returns the noised sum, the next state and one event for both sums."""
    seed = keyed_noise.derive_seed(global_state.key, global_state.num_releases)
    result = keyed_noise.add_gaussian_noise(
      sample_state.sum,
      stddev=self._sum_noise_multiplier * global_state.l2_norm_clip,
      seed=keyed_noise.derive_seed(seed, _SUM),
    )
    count = keyed_noise.add_gaussian_noise(
      sample_state.unclipped,
      stddev=self._count_stddev,
      seed=keyed_noise.derive_seed(seed, _COUNT),
    )
    share = count / self._expected_records + _COUNT_SENSITIVITY
    error = tf.clip_by_value(share, 0.0, 1.0) - self._target_quantile
    next_state = self.GlobalState(
      global_state.l2_norm_clip * tf.exp(-self._learning_rate * error),
      global_state.key,
      global_state.num_releases + 1,
    )
    return result, next_state, self._event()

  def _event(self) -> dp_accounting.DpEvent:
    multipliers = (
      self._sum_noise_multiplier,
      self._count_stddev / _COUNT_SENSITIVITY,
    )
    combined = 0.0
    if all(multipliers):
      combined = sum(m**-2 for m in multipliers) ** -0.5
    return dp_accounting.GaussianDpEvent(tf.constant(combined, tf.float32))

  def derive_metrics(self, global_state: Any) -> Any:
    """Returns the clip norm of the next release."""
    return collections.OrderedDict(clip_norm=global_state.l2_norm_clip)

  def noise_stddev(self, global_state: Any) -> Any:
    """Returns the standard deviation of the noise on the next sum."""
    return self._sum_noise_multiplier * global_state.l2_norm_clip
