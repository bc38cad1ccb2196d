"""FedDyn: a regularizer that moves with each client, so that optima agree.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated learning
based on dynamic regularization", ICLR 2021 (arXiv:2111.04263), Algorithm 1,
with alpha = `regularization_strength` and m = `population`. Client k keeps the
gradient g_k of its loss at where it last stopped, the server h; both start at
zero:

  client k:  w_k minimizes, inexactly, by local steps from w,
             F_k(w_k) - <g_k, w_k> + alpha/2 |w_k - w|^2
             g_k <- g_k - alpha (w_k - w), which it keeps
  server:    h <- h - alpha/m sum over the cohort of (w_k - w)
             w <- mean over the cohort of w_k - h / alpha

As computed here, with s = -h / alpha: the server's step is along the mean of
w - w_k, less s, where s <- s - 1/m sum of (w - w_k); alpha itself is needed on
the clients alone. In a cohort of nobody the mean is undefined and w stays.

The mean over the cohort is uniform and the server's step has the length 1; both
are part of the algorithm, so weights by examples and other server optimizers
are refused. In the first round the update is that of `fed_prox` with strength
alpha, times 1 + |cohort|/m.

Releases from a cohort: the sum of updates and train metrics. No second
aggregate; but what its clients keep is covered by no statement here.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import collecting
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.algorithms import fed_prox
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop

GRADIENT = 'gradient'
"""Name of g_k in a client's state."""


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  population: int,
  regularization_strength: float,
  protection: protections.Protection,
  aggregator: tff.aggregators.WeightedAggregationFactory,
  weighting: config.Weighting,
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    population: m, the number of clients, whether they ever take part or not.
    regularization_strength: alpha, above 0.
    protection: What happens to the update; nothing may noise local steps.
    aggregator: A weighted mean.
    weighting: Must be uniform.
    **others: As for `fed_avg.build`; the server optimizer is to be SGD at 1.

  Raises:
    ValueError: If the population is empty, updates would be weighted by
      examples, or local steps noised.
  """
  if population < 1:
    raise ValueError(f'Expected a population of 1 or more, found {population}.')
  if weighting is not config.Weighting.UNIFORM:
    raise ValueError(f'Expected uniform weighting, found {weighting}.')
  if protection.gradient is not training_loop.batch_gradient:
    raise ValueError('Expected no noise on local steps: states keep them.')

  def gradient(model):
    return fed_prox.add_proximal_term(
      training_loop.add_term(
        training_loop.batch_gradient(model),
        lambda _, step: tuple(map(tf.negative, _kept(step.element))),
      ),
      regularization_strength,
    )

  def next_gradient(update, element):
    return {
      GRADIENT: tuple(
        kept + regularization_strength * way
        for kept, way in zip(_kept(element), update, strict=True)
      )
    }

  return fed_avg.build(
    model,
    protection=dataclasses.replace(protection, gradient=gradient),
    aggregator=DynamicMeanFactory(aggregator, population=population),
    weighting=weighting,
    memory=model_delta.Memory(keeps=(GRADIENT,), call=next_gradient),
    **others,
  )


def _kept(element: training_loop.Element) -> tuple[tf.Tensor, ...]:
  return element[training_loop.STATE][GRADIENT]


class DynamicMeanFactory(tff.aggregators.WeightedAggregationFactory):
  """Builds the mean plus the sum of all earlier ones, each times its share.

    total <- total + sum of weights / population * mean;  result: mean + total

  With weights that are 1, or 0 for whoever does not count. If the weights sum
  to zero, the result is zero.
  """

  def __init__(
    self,
    mean: tff.aggregators.WeightedAggregationFactory,
    *,
    population: int,
  ) -> None:
    """Initializes the factory.

    Args:
      mean: Builds the mean.
      population: What the sum of weights is a share of.
    """
    self._mean = mean
    self._population = population

  def create(
    self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Returns the process; its state is the mean's and the total."""
    mean = self._mean.create(value_type, weight_type)
    population = np.float32(self._population)

    @tff.tensorflow.computation
    def zero():
      return collecting.packed(
        (
          tf.zeros(leaf.shape, leaf.dtype)
          for leaf in collecting.tensor_types(value_type)
        ),
        value_type,
      )

    @tff.tensorflow.computation(value_type, value_type, weight_type)
    def add(total, value, weights):
      total = tf.nest.map_structure(
        lambda t, v: t + weights / population * v, total, value
      )
      result = tf.nest.map_structure(
        lambda t, v: tf.where(weights > 0, t + v, tf.zeros_like(v)),
        total,
        value,
      )
      return result, total

    @tff.federated_computation
    def initialize():
      total = tff.federated_eval(zero, tff.SERVER)
      return tff.federated_zip((mean.initialize(), total))

    @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
      tff.FederatedType(weight_type, tff.CLIENTS),
    )
    def next_fn(state, value, weight):
      mean_state, total = state
      found = mean.next(mean_state, value, weight)
      result, total = tff.federated_map(
        add, (total, found.result, tff.federated_sum(weight))
      )
      return tff.templates.MeasuredProcessOutput(
        tff.federated_zip((found.state, total)), result, found.measurements
      )

    return tff.templates.AggregationProcess(initialize, next_fn)
