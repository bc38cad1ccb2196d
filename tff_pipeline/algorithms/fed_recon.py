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
from tff_pipeline.models import functional
from tff_pipeline.models import split as splits

_SUPPORT, _QUERY = slice(0, None, 2), slice(1, None, 2)


def build(
  model: functional.LayeredModel, *, local_layers: str, **others: Any
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    local_layers: What is v; see `models.layers.choose`.
    **others: As for `partial.alternating`, where the shared layers are w.
  """
  return partial.alternating(
    splits.build(model, local_layers),
    partial.forgetting,
    local_rows=_SUPPORT,
    shared_rows=_QUERY,
    **others,
  )
