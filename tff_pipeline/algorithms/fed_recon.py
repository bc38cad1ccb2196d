"""Federated reconstruction: local layers are made anew in each participation.

Singhal, Sidahmed, Garrett, Wu, Rush, Prakash, "Federated reconstruction:
partially local federated learning", NeurIPS 2021 (arXiv:2102.03448),
Algorithm 1 (FedRecon), with the server step of `fed_avg`:

  client k:  S_k, Q_k: every second example, and the others
             v_k <- `local_steps` steps on v from its initial value over S_k,
                    the global w held fixed
             w_k <- `epochs` passes of steps on w over Q_k, v_k held fixed
  server:    w <- server_optimizer(w, gradient=sum_k p_k (w - w_k))

v are the layers of `--algorithm.local_layers`. Nothing is kept, so a client
that takes part once is served like any other. p_k counts the examples of Q_k.
It equals TFF's `build_fed_recon` with the same split.

Releases from a cohort: the average update of w, and train metrics, which are
those on Q_k. v stays on the client and is not covered by any guarantee.
"""

from typing import Any

import tensorflow_federated as tff

from tff_pipeline.algorithms import partial
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop
from tff_pipeline.models import functional
from tff_pipeline.models import split as splits

_SUPPORT, _QUERY = slice(0, None, 2), slice(1, None, 2)


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
  """Returns the learning process.

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
    local_rows=_SUPPORT,
    shared_rows=_QUERY,
  )
  return partial.forgetting(split, train, protection=protection, **others)
