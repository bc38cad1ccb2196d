"""FedPer: a shared body, and a head that each client keeps.

Arivazhagan, Aggarwal, Singh, Choudhary, "Federated learning with
personalization layers", 2019 (arXiv:1912.00818), Algorithms 1 and 2, with the
server step of `fed_avg`:

  client k:  (w_k, v_k) <- `epochs` passes of client-optimizer steps on both,
             from the global w and its own v_k
  server:    w <- server_optimizer(w, gradient=sum_k p_k (w - w_k))

v are the layers of `--algorithm.local_layers`. A client that takes part for the
first time starts from the initial v. Without local layers it is `fed_avg`.

Releases from a cohort: the average update of w, and train metrics. What that
guarantees, and that it does not cover v: see `partial`. Under `dp_sgd` each
step noises the gradients of both, so that v is covered, too.
"""

from typing import Any

import tensorflow_federated as tff

from tff_pipeline.algorithms import partial
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop
from tff_pipeline.models import functional
from tff_pipeline.models import split as splits


def build(
  model: functional.LayeredModel,
  *,
  local_layers: str,
  client_optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  protection: protections.Protection,
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process, with client states.

  Args:
    model: The model; its initial weights are the global ones.
    local_layers: What is v; see `models.layers.choose`.
    client_optimizer: Starts afresh on each client in each round.
    schedule: Epochs and batches on a client.
    protection: What a privacy mechanism does on a client.
    **others: As for `fed_avg.build`.
  """
  split = splits.build(model, local_layers)
  gradient = protection.gradient(model)

  def train(shared, local, element, learning_rate):
    trained, metrics = training_loop.train(
      model,
      gradient,
      optimizer=client_optimizer,
      schedule=schedule,
      weights=(split.merge(shared, local), ()),
      element=element,
      learning_rate=learning_rate,
    )
    return *split.divide(trained), metrics

  return partial.remembering(split, train, protection=protection, **others)
