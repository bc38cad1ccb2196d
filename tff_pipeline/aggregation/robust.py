"""Aggregators that some dishonest clients cannot steer at will.

  clipped_mean      an update is scaled down to norm `norm_limit`; TFF's
  zeroed_mean       an update of a larger norm counts as zero; TFF's
  adaptive_mean     both, at quantiles that TFF estimates (`robust_aggregator`)
  median            of each coordinate
  trimmed_mean      of each coordinate, without floor(share m) values at either
                    end of m
  geometric_median  argmin_v sum_k p_k |v - u_k|

Median and trimmed mean: Yin, Chen, Ramchandran, Bartlett, "Byzantine-robust
distributed learning: towards optimal statistical rates", ICML 2018
(arXiv:1803.01498), Algorithm 1. Geometric median (RFA): Pillutla, Kakade,
Harchaoui, "Robust aggregation for federated learning", IEEE TSP 2022
(arXiv:1912.13445), Algorithm 2, the smoothed Weiszfeld algorithm:

  v <- mean;  steps times:  b_k = p_k / max(nu, |v - u_k|),
                            v <- sum_k b_k u_k / sum_k b_k

The last three need the updates one by one. They are collected and the statistic
is taken at the server (`collecting`): no secure aggregation, memory cohort x
model. RFA as published needs a round of secure sums for each step; that is an
order of messages that one pass over the cohort does not have. A client of
weight zero, whose update was rejected, does not count; nor does an update that
is not finite, which only an attacker sends. No clients at all give zero.
"""

import collections
from collections.abc import Callable, Sequence
import math

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import collecting

SMOOTHING = 1e-6
"""nu: distances below it count as it, in units of the model weights."""

Rows = Sequence[tf.Tensor]
Statistic = Callable[[Rows, tf.Tensor], list[tf.Tensor]]
"""Rows [m, ...] of each tensor and weights float32[m], m >= 1 -> tensors."""


def build(
  algorithm: config.Algorithm,
) -> tff.aggregators.WeightedAggregationFactory | None:
  """Returns the aggregator of the leaf; `None` for the mechanism's mean."""
  limit, name = algorithm.norm_limit, algorithm.aggregator
  mean = tff.aggregators.MeanFactory(no_nan_division=True)
  if name is config.Aggregator.MEAN:
    return None
  if name is config.Aggregator.CLIPPED_MEAN:
    return tff.aggregators.clipping_factory(limit, mean)
  if name is config.Aggregator.ZEROED_MEAN:
    return tff.aggregators.zeroing_factory(limit, mean)
  if name is config.Aggregator.ADAPTIVE_MEAN:
    return _adaptive(mean)
  statistics = {
    config.Aggregator.MEDIAN: median,
    config.Aggregator.TRIMMED_MEAN: trimmed_mean(algorithm.trimmed_share),
    config.Aggregator.GEOMETRIC_MEDIAN: geometric_median(
      algorithm.weiszfeld_steps
    ),
  }
  return StatisticFactory(statistics[name])


def _adaptive(
  mean: tff.aggregators.WeightedAggregationFactory,
) -> tff.aggregators.WeightedAggregationFactory:
  """Returns `tff.learning.robust_aggregator` over a mean of our own.

  Its own one divides by the realised weight: an empty Poisson cohort would
  give undefined weights. The constants are that function's.
  """
  quantile = tff.aggregators.PrivateQuantileEstimationProcess.no_noise
  clipping = quantile(
    initial_estimate=1.0, target_quantile=0.8, learning_rate=0.2
  )
  zeroing = quantile(
    initial_estimate=10.0,
    target_quantile=0.98,
    learning_rate=math.log(10.0),
    multiplier=2.0,
    increment=1.0,
  )
  return tff.aggregators.zeroing_factory(
    zeroing, tff.aggregators.clipping_factory(clipping, mean)
  )


class StatisticFactory(tff.aggregators.WeightedAggregationFactory):
  """Collects the updates of a cohort, and takes a statistic of them."""

  def __init__(self, statistic: Statistic):
    self._statistic = statistic

  def create(
    self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Returns the stateless process for values of this type.

    Its measurement is the number of updates that were left out.
    """

    def of_rows(rows):
      values, weights = rows
      flat, kept = _kept(tf.nest.flatten(values), weights)
      result = tf.cond(
        tf.size(kept) > 0,
        lambda: self._statistic(flat, kept),
        lambda: [tf.zeros(t.shape[1:], t.dtype) for t in flat],
      )
      measured = collections.OrderedDict(
        left_out=tf.size(weights) - tf.size(kept)
      )
      return collecting.packed(result, value_type), measured

    @tff.federated_computation
    def initialize():
      return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
      tff.FederatedType(weight_type, tff.CLIENTS),
    )
    def next_fn(state, value, weight):
      rows = collecting.collect(tff.federated_zip((value, weight)))
      statistic = tff.tensorflow.computation(
        of_rows, rows.type_signature.member
      )
      result, measured = tff.federated_map(statistic, rows)
      return tff.templates.MeasuredProcessOutput(state, result, measured)

    return tff.templates.AggregationProcess(initialize, next_fn)


def _kept(rows: Rows, weights: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
  """Returns the rows of finite updates with a weight, and their weights."""
  finite = [
    tf.reduce_all(
      tf.math.is_finite(tf.reshape(t, [tf.shape(t)[0], -1])), axis=1
    )
    for t in rows
  ]
  keep = tf.reduce_all(tf.stack(finite), axis=0) & (weights > 0)
  return (
    [tf.boolean_mask(t, keep) for t in rows],
    tf.boolean_mask(weights, keep),
  )


def median(rows: Rows, weights: tf.Tensor) -> list[tf.Tensor]:
  """Returns the median of each coordinate; of an even number, the middle."""
  size = tf.size(weights)
  return [
    (t[(size - 1) // 2] + t[size // 2]) / 2
    for t in (tf.sort(t, axis=0) for t in rows)
  ]


def trimmed_mean(share: float) -> Statistic:
  """Returns the mean of each coordinate without the ends.

  Args:
    share: Of the updates that is left out at each end; below 1/2, so that
      at least one is left. 0 is the mean.
  """

  def statistic(rows: Rows, weights: tf.Tensor) -> list[tf.Tensor]:
    size = tf.size(weights)
    cut = tf.cast(tf.floor(share * tf.cast(size, tf.float64)), tf.int32)
    return [
      tf.reduce_mean(tf.sort(t, axis=0)[cut : size - cut], axis=0) for t in rows
    ]

  return statistic


def geometric_median(steps: int) -> Statistic:
  """Returns the point after `steps` smoothed Weiszfeld steps from the mean."""

  def statistic(rows: Rows, weights: tf.Tensor) -> list[tf.Tensor]:
    flat = tf.concat([tf.reshape(t, [tf.size(weights), -1]) for t in rows], 1)
    point = _weighted_mean(flat, weights)
    for _ in range(steps):
      distances = tf.norm(flat - point, axis=1)
      point = _weighted_mean(flat, weights / tf.maximum(SMOOTHING, distances))
    sizes = [t.shape[1:].num_elements() for t in rows]
    return [
      tf.reshape(part, t.shape[1:])
      for part, t in zip(tf.split(point, sizes), rows, strict=True)
    ]

  return statistic


def _weighted_mean(rows: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  shares = weights / tf.reduce_sum(weights)
  return tf.linalg.matvec(rows, shares, transpose_a=True)
