"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient
learning of deep networks from decentralized data", AISTATS 2017
(arXiv:1602.05629), Algorithm 1, with the server step of Reddi et al.,
"Adaptive federated optimization", ICLR 2021 (arXiv:2003.00295), Algorithm 1:

  client k:  w_k <- `epochs` passes of client-optimizer steps from w
  update:    delta = sum_k p_k (w - w_k),  p_k from `weighting` or the mechanism
  server:    w <- server_optimizer(w, gradient=delta)

With server SGD at learning rate 1 this is the paper's average of the w_k. The
server optimizer makes the others of Reddi et al.:

  FedAvgM     --server.optimizer=sgd --server.momentum=0.9
  FedAdagrad  --server.optimizer=adagrad
  FedAdam     --server.optimizer=adam
  FedYogi     --server.optimizer=yogi

TFF's optimizers differ from the paper's Algorithm 2 in their start: Adam and
Yogi correct the bias of both moments, as Kingma and Ba do, where the paper
corrects nothing and starts the second one at tau^2 or above.

Releases from a cohort: the average update (through the aggregator, so noised
under a mechanism) and train metrics (never noised, named so).
"""

from collections.abc import Callable

import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.aggregation import collecting
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import processes
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop

Distributor = Callable[[tff.Type], tff.learning.templates.DistributionProcess]
"""Type of the weights -> how they get to the clients."""


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  client_optimizer: tff.learning.optimizers.Optimizer,
  server_optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  protection: protections.Protection,
  aggregator: tff.aggregators.AggregationFactory,
  weighting: config.Weighting | model_delta.Weigh,
  rate: processes.Rate | None = None,
  distributor: Distributor = tff.learning.templates.build_broadcast_process,
  memory: model_delta.Memory = model_delta.NO_MEMORY,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    client_optimizer: Starts afresh on each client in each round.
    server_optimizer: Takes the average update as its gradient.
    schedule: Epochs and batches on a client.
    protection: What a privacy mechanism does on a client.
    aggregator: Averages updates; an unweighted one ignores the weights.
    weighting: Weight of an update in a weighted average.
    rate: The clients' learning rate by round; unset means its optimizer's.
    distributor: Builds the broadcast of the weights.
    memory: What a client keeps between rounds.

  Returns:
    A process whose client data are dense: one element per client.
  """
  work = model_delta.build(
    model,
    protection.gradient(model),
    optimizer=client_optimizer,
    schedule=schedule,
    weighting=weighting,
    release=protection.release,
    extra_spec=protection.extra_spec,
    rate=rate,
    memory=memory,
    collect=collecting.client_states,
  )
  return compose(
    model,
    client_work_process=work,
    server_optimizer=server_optimizer,
    aggregator=aggregator,
    distributor=distributor,
  )


def compose(
  model: tff.learning.models.FunctionalModel,
  *,
  client_work_process: tff.learning.templates.ClientWorkProcess,
  server_optimizer: tff.learning.optimizers.Optimizer,
  aggregator: tff.aggregators.AggregationFactory,
  distributor: Distributor = tff.learning.templates.build_broadcast_process,
) -> tff.learning.templates.LearningProcess:
  """Returns broadcast, client work, aggregation and server step, composed."""

  @tff.tensorflow.computation
  def initial_weights():
    return tff.learning.models.ModelWeights(*model.initial_weights)

  weights_type = initial_weights.type_signature.result
  if isinstance(aggregator, tff.aggregators.UnweightedAggregationFactory):
    aggregator = tff.aggregators.as_weighted_aggregator(aggregator)
  result_type = client_work_process.next.type_signature.result.result.member
  return tff.learning.templates.compose_learning_process(
    initial_weights,
    distributor(weights_type),
    client_work_process,
    aggregator.create(result_type.update, result_type.update_weight),
    tff.learning.templates.build_apply_optimizer_finalizer(
      server_optimizer, weights_type
    ),
  )
