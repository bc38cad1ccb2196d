"""Federated SGD: each client sends one gradient, and the server steps.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient
learning of deep networks from decentralized data", AISTATS 2017
(arXiv:1602.05629), section 2, the baseline of federated averaging:

  client k:  g_k <- gradient of the mean loss of all its examples at w
  server:    w <- server_optimizer(w, gradient=sum_k p_k g_k)

The batch size decides how many examples are held at a time, nothing else. With
SGD on both sides it is `fed_avg` of one epoch in one batch at client learning
rate 1.

Releases from a cohort: the average gradient (through the aggregator, so noised
under a mechanism) and train metrics (never noised, named so).
"""

import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import collecting
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import full_pass
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import processes
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  server_optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  protection: protections.Protection,
  aggregator: tff.aggregators.AggregationFactory,
  weighting: config.Weighting,
  distributor: fed_avg.Distributor = (
    tff.learning.templates.build_broadcast_process
  ),
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    server_optimizer: Takes the average gradient.
    schedule: Its batch size bounds memory.
    protection: Only its release is used: there are no local steps to noise.
    aggregator: Averages gradients; an unweighted one ignores the weights.
    weighting: Weight of a gradient in a weighted average.
    distributor: Builds the broadcast of the weights.

  Raises:
    ValueError: If the protection noises local steps.
  """
  if protection.gradient is not training_loop.batch_gradient:
    raise ValueError('Expected no noise on local steps: there are none.')
  weigh = model_delta.weigh_by(weighting)

  def client_update(weights, element, learning_rate):
    del learning_rate
    at = (weights.trainable, weights.non_trainable)
    gradient, metrics = full_pass.gradient(
      model, batch_size=schedule.batch_size, weights=at, element=element
    )
    return model_delta.finish(
      model,
      *weigh(gradient, at, element, metrics),
      release=protection.release,
      metrics=metrics,
      element=element,
    )

  return fed_avg.compose(
    model,
    client_work_process=processes.build(
      model,
      client_update,
      extra_spec=protection.extra_spec,
      rate=None,
      keeps=processes.parts_like(
        model.initial_weights[0], protection.release.keeps
      ),
      collect=collecting.client_states,
    ),
    server_optimizer=server_optimizer,
    aggregator=aggregator,
    distributor=distributor,
  )
