"""FedRep: the client's own head first, then the shared representation.

Collins, Hassani, Mokhtari, Shakkottai, "Exploiting shared representations for
personalized federated learning", ICML 2021 (arXiv:2102.07078), Algorithm 1,
with the server step of `fed_avg`:

  client k:  v_k <- `local_steps` steps on v_k, the global w held fixed
             w_k <- `epochs` passes of steps on w from the global one, this v_k
                    held fixed
  server:    w <- server_optimizer(w, gradient=sum_k p_k (w - w_k))

v are the layers of `--algorithm.local_layers`; a client keeps its own. The
paper takes one step on w: `--client.max_steps=1`. Without local layers, it is
`fed_avg`.

Releases from a cohort: the average update of w, and train metrics. What that
guarantees, and that it does not cover v: see `partial`.
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
  local_steps: int,
  local_learning_rate: float | None,
  client_optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  protection: protections.Protection,
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process, with client states.

  Args:
    model: The model; its initial weights are the global ones.
    local_layers: What is v; see `models.layers.choose`.
    local_steps: Steps on v.
    local_learning_rate: Of these steps; unset means the client's.
    client_optimizer: Starts afresh for v and for w.
    schedule: Epochs on w, and the batches of both.
    protection: What happens to the update; may not noise steps.
    **others: As for `fed_avg.build`.
  """
  split = splits.build(model, local_layers)
  train = partial.alternately(
    split,
    optimizer=client_optimizer,
    schedule=schedule,
    local_steps=local_steps,
    local_learning_rate=local_learning_rate,
    protection=protection,
  )
  return partial.remembering(split, train, protection=protection, **others)
