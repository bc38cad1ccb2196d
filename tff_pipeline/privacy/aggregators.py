"""Aggregators with a public denominator.

Dividing by the realised cohort size would release that size, and an empty
cohort would divide by zero.
"""

import collections
import math

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure
import tensorflow_privacy as tfp


class MeasuredDpMean(tff.aggregators.UnweightedAggregationFactory):
  """TFF's `DifferentiallyPrivateFactory`, with the share that was clipped.

  Its state is that factory's, so the event of a release is found by
  `extract_dp_event_from_state`. Its measurements are `clip_norm`, the one in
  force in this round; `released_update_norm`, the L2 norm of the noised mean;
  `noise_norm`, what that norm is expected to be of noise alone (root mean
  square); and `clipped_share`, which is not noised.
  """

  def __init__(self, query: tfp.SumAggregationDPQuery, *, denominator: float):
    """Initializes the factory.

    Args:
      query: A sum whose sample parameters are its clip norm, with a
        `noise_stddev` and a `clip`.
      denominator: What the sum is divided by; public.
    """
    self._sum = query
    self._denominator = denominator
    self._query = tfp.NormalizedQuery(query, denominator=denominator)

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process that aggregates values of this type."""
    private = tff.aggregators.DifferentiallyPrivateFactory(self._query)
    inner = private.create(value_type)
    state_type = inner.initialize.type_signature.result
    dimensions = sum(
      math.prod(spec.shape) for spec in structure.flatten(value_type)
    )

    @tff.tensorflow.computation(state_type.member)
    def clip_norm_in_force(state):
      return self._query.derive_sample_params(state.query_state)

    @tff.tensorflow.computation(np.float32, value_type)
    def is_clipped(clip_norm, value):
      _, norm = self._sum.clip(value, clip_norm)
      return tf.cast(norm > clip_norm, tf.float32), tf.constant(1.0)

    @tff.tensorflow.computation(state_type.member)
    def noise_norm_in_force(state):
      stddev = self._sum.noise_stddev(state.query_state.numerator_state)
      return tf.cast(stddev, tf.float32) * (dimensions**0.5 / self._denominator)

    @tff.tensorflow.computation
    def measurements(clip_norm, clipped, clients, released, noise_norm):
      return collections.OrderedDict(
        clip_norm=clip_norm,
        clipped_share=tf.math.divide_no_nan(clipped, clients),
        released_update_norm=tf.linalg.global_norm(tf.nest.flatten(released)),
        noise_norm=noise_norm,
      )

    @tff.federated_computation(
      state_type, tff.FederatedType(value_type, tff.CLIENTS)
    )
    def next_fn(state, value):
      clip_norm = tff.federated_map(clip_norm_in_force, state)
      clipped, clients = tff.federated_sum(
        tff.federated_map(
          is_clipped, (tff.federated_broadcast(clip_norm), value)
        )
      )
      output = inner.next(state, value)
      noise_norm = tff.federated_map(noise_norm_in_force, state)
      measured = tff.federated_map(
        measurements, (clip_norm, clipped, clients, output.result, noise_norm)
      )
      return tff.templates.MeasuredProcessOutput(
        output.state, output.result, measured
      )

    return tff.templates.AggregationProcess(inner.initialize, next_fn)


class FixedDenominatorMean(tff.aggregators.UnweightedAggregationFactory):
  """The sum over a public denominator, without any noise of its own."""

  def __init__(self, denominator: float):
    """Initializes the factory.

    Args:
      denominator: What the sum is divided by.
    """
    self._denominator = denominator

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the process that aggregates values of this type."""
    inner = tff.aggregators.SumFactory().create(value_type)

    @tff.tensorflow.computation(value_type)
    def divide(total):
      return tf.nest.map_structure(lambda t: t / self._denominator, total)

    @tff.federated_computation(
      inner.initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      output = inner.next(state, value)
      return tff.templates.MeasuredProcessOutput(
        output.state,
        tff.federated_map(divide, output.result),
        output.measurements,
      )

    return tff.templates.AggregationProcess(inner.initialize, next_fn)
