"""One `config.Privacy` -> everything that acts, and what it guarantees.

What acts also accounts: the noise that is added and the noise that the
guarantee prices come from the same leaves, in one call.

  mechanism          on the client                  at the server
  -----------------  -----------------------------  --------------------------
  none                                              mean
  gaussian                                          clip, sum, noise, / cohort
  gaussian_adaptive                                 the same; C by a quantile
  local              clip the update, noise         sum, / cohort
  dp_sgd             clip each example's gradient,  mean
                     sum, noise, / batch size

The `example_` leaves put what `dp_sgd` does on the clients beneath a user-level
mechanism. The cohort in a denominator is the expected one, which is public.
"""

import dataclasses
import functools

import tensorflow_federated as tff
import tensorflow_privacy as tfp

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline import sampling
from tff_pipeline.client_work import dp_sgd
from tff_pipeline.client_work import local_dp
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import aggregators
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import noise_key as noise_keys
from tff_pipeline.privacy import queries

# Both bound the norm of the whole update, so they are priced alike.
_CLIPS = {
  None: keyed_noise.clip,
  config.Clipping.FLAT: keyed_noise.clip,
  config.Clipping.PER_LAYER: keyed_noise.clip_each_tensor,
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mechanism:
  """What one private round does, and what it costs.

  Attributes:
    protection: What it does on a client.
    aggregator: Averages client updates; unweighted under user-level privacy.
    sampler: Round number -> client ids.
    guarantee: What they together promise; `accounting` prices it.
  """

  protection: protections.Protection
  aggregator: tff.aggregators.AggregationFactory
  sampler: sampling.Sampler
  guarantee: accounting.Guarantee


def build(
  terms: config.Terms,
  *,
  population: int,
  noise_key: noise_keys.NoiseKey,
) -> Mechanism:
  """Builds the parts of a mechanism from the same leaves.

  Args:
    terms: What the run is priced on, with nothing left to solve.
    population: Number of clients in the data.
    noise_key: What all noise derives from.

  Returns:
    The mechanism.
  """
  privacy, cohort = terms.privacy, terms.cohort
  return Mechanism(
    protection=protection(privacy),
    aggregator=aggregator(
      privacy,
      expected_cohort=sampling.expected_size(cohort, population=population),
      noise_key=noise_key,
    ),
    sampler=sampling.build(cohort, population=population, seed=terms.seed),
    guarantee=guarantees.build(terms),
  )


def protection(privacy: config.Privacy) -> protections.Protection:
  """Returns what a mechanism does on a client."""
  example_level = (privacy.example_clip_norm, privacy.example_noise_multiplier)
  if privacy.mechanism is config.Mechanism.DP_SGD:
    example_level = (privacy.clip_norm, privacy.noise_multiplier)
  gradient, release = training_loop.batch_gradient, protections.UNCHANGED
  extra_spec = {}
  if None not in example_level:
    gradient = functools.partial(
      dp_sgd.gradient,
      clip_norm=example_level[0],
      noise_multiplier=example_level[1],
    )
    extra_spec = {training_loop.NOISE_KEY: training_loop.KEY_SPEC}
  if privacy.mechanism is config.Mechanism.LOCAL:
    release = local_dp.release(
      clip_norm=privacy.clip_norm,
      noise_multiplier=privacy.noise_multiplier,
      clip=_CLIPS[privacy.clipping],
    )
    extra_spec = {training_loop.NOISE_KEY: training_loop.KEY_SPEC}
  return protections.Protection(
    gradient=gradient, release=release, extra_spec=extra_spec
  )


def aggregator(
  privacy: config.Privacy,
  *,
  expected_cohort: float,
  noise_key: noise_keys.NoiseKey,
) -> tff.aggregators.AggregationFactory:
  """Returns what a mechanism does at the server.

  Args:
    privacy: The privacy leaves, with the noise multiplier solved.
    expected_cohort: Expected number of clients in a round.
    noise_key: What all noise derives from.

  Returns:
    A weighted mean, whose weights the client work gives, without user-level
    privacy; else a sum over `expected_cohort`. With `noise_cohort_size`, the
    noise on that mean is the one of a cohort of that size; the event in the
    aggregator's state is then that of the noise as run.
  """
  if privacy.mechanism in (config.Mechanism.NONE, config.Mechanism.DP_SGD):
    return tff.aggregators.MeanFactory(no_nan_division=True)
  if privacy.mechanism is config.Mechanism.LOCAL:
    return aggregators.FixedDenominatorMean(expected_cohort)
  query = _QUERIES[privacy.mechanism](
    privacy,
    expected_cohort=expected_cohort,
    noise_scale=expected_cohort
    / (privacy.noise_cohort_size or expected_cohort),
    noise_key=noise_key,
  )
  return aggregators.MeasuredDpMean(query, denominator=expected_cohort)


def _gaussian_query(
  privacy: config.Privacy,
  *,
  expected_cohort: float,
  noise_scale: float,
  noise_key: noise_keys.NoiseKey,
) -> tfp.SumAggregationDPQuery:
  del expected_cohort
  return queries.KeyedGaussianSumQuery(
    l2_norm_clip=privacy.clip_norm,
    stddev=noise_scale * privacy.noise_multiplier * privacy.clip_norm,
    key=noise_key,
    clip=_CLIPS[privacy.clipping],
  )


def _adaptive_query(
  privacy: config.Privacy,
  *,
  expected_cohort: float,
  noise_scale: float,
  noise_key: noise_keys.NoiseKey,
) -> tfp.SumAggregationDPQuery:
  for_sum = bounds.remaining_noise_multiplier(
    privacy.noise_multiplier, other=2 * privacy.clipped_count_stddev
  )
  return queries.KeyedAdaptiveClipSumQuery(
    initial_l2_norm_clip=privacy.clip_norm,
    sum_noise_multiplier=noise_scale * for_sum,
    count_stddev=noise_scale * privacy.clipped_count_stddev,
    target_quantile=privacy.target_quantile,
    learning_rate=privacy.clip_learning_rate,
    expected_records=expected_cohort,
    key=noise_key,
    clip=_CLIPS[privacy.clipping],
  )


_QUERIES = {
  config.Mechanism.GAUSSIAN: _gaussian_query,
  config.Mechanism.GAUSSIAN_ADAPTIVE: _adaptive_query,
}
