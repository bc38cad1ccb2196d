"""One `config.Privacy` -> aggregator, sampler and guarantee, built together.

What acts also accounts: the noise that the aggregator adds and the noise that
the guarantee prices come from the same leaves, in one call.
"""

import collections
import dataclasses

import tensorflow as tf
import tensorflow_federated as tff
import tensorflow_privacy as tfp

from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import noise_key as noise_keys
from tff_pipeline.privacy import queries


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mechanism:
  """What one private round does, and what it costs.

  Attributes:
    aggregator: Averages client updates; unweighted under user-level privacy.
    sampler: Round number -> client ids.
    guarantee: What the two together promise; `accounting` prices it.
  """

  aggregator: tff.aggregators.AggregationFactory
  sampler: sampling.Sampler
  guarantee: accounting.Guarantee


def build(
  privacy: config.Privacy,
  cohort: config.Cohort,
  *,
  weighting: config.Weighting,
  population: int,
  seed: int,
  noise_key: noise_keys.NoiseKey,
) -> Mechanism:
  """Builds the three parts of a mechanism from the same leaves.

  Args:
    privacy: The privacy leaves, with the noise multiplier solved.
    cohort: The sampling leaves, with the cohort size solved.
    weighting: Weight of an update; only used without privacy.
    population: Number of clients in the data.
    seed: The experiment's seed, which decides the cohorts.
    noise_key: What all noise derives from.

  Returns:
    The mechanism.
  """
  return Mechanism(
    aggregator=_aggregator(
      privacy,
      weighting=weighting,
      expected_cohort=sampling.expected_size(cohort, population=population),
      noise_key=noise_key,
    ),
    sampler=sampling.build(cohort, population=population, seed=seed),
    guarantee=accounting.guarantee(privacy, cohort),
  )


def _aggregator(
  privacy: config.Privacy,
  *,
  weighting: config.Weighting,
  expected_cohort: float,
  noise_key: noise_keys.NoiseKey,
) -> tff.aggregators.AggregationFactory:
  if privacy.mechanism is config.Mechanism.NONE:
    if weighting is config.Weighting.NUM_EXAMPLES:
      return tff.aggregators.MeanFactory()
    return tff.aggregators.UnweightedMeanFactory()
  sum_query = queries.KeyedGaussianSumQuery(
    l2_norm_clip=privacy.clip_norm,
    stddev=privacy.noise_multiplier * privacy.clip_norm,
    key=noise_key,
  )
  # The denominator is public and fixed: dividing by the realised cohort size
  # would release that size, and an empty cohort would divide by zero.
  mean_query = tfp.NormalizedQuery(sum_query, denominator=expected_cohort)
  return tff.aggregators.add_measurements(
    tff.aggregators.DifferentiallyPrivateFactory(mean_query),
    client_measurement_fn=_clipping_measurements(privacy.clip_norm),
  )


def _clipping_measurements(clip_norm: float):
  """Returns a measurement of the share of updates that clipping shortens."""

  @tff.tensorflow.computation
  def is_clipped(update):
    update, _ = queries.zero_if_non_finite(update)
    norm = tf.linalg.global_norm(tf.nest.flatten(update))
    return tf.cast(norm > clip_norm, tf.float32), tf.constant(1.0)

  @tff.tensorflow.computation
  def share(clipped, clients):
    return collections.OrderedDict(
      clipped_share=tf.math.divide_no_nan(clipped, clients)
    )

  def measure(update):
    sums = tff.federated_sum(tff.federated_map(is_clipped, update))
    return tff.federated_map(share, sums)

  return measure
