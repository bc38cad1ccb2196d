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
from tff_pipeline.models import functional
from tff_pipeline.models import split as splits


def build(
  model: functional.LayeredModel, *, local_layers: str, **others: Any
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process, with client states.

  Args:
    model: The model; its initial weights are the global ones.
    local_layers: What is v; see `models.layers.choose`.
    **others: As for `partial.alternating`, where the shared layers are w.
  """
  return partial.alternating(
    splits.build(model, local_layers), partial.remembering, **others
  )
