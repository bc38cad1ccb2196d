"""FedProx: a proximal term holds clients near the global model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in
heterogeneous networks", MLSys 2020 (arXiv:1812.06127), Algorithm 2:

  client k:  minimizes  F_k(w_k) + proximal_strength/2 |w_k - w|^2  inexactly:
             each step descends along  gradient + proximal_strength (w_k - w)

and otherwise `fed_avg`. At strength 0 it is `fed_avg`. The paper draws clients
with probability proportional to their examples and averages uniformly; here
that is the choice of `weighting`. Its stragglers, clients that get through
fewer epochs, are `--client.stragglers=partial`; what the paper compares with,
FedAvg that drops them, is `drop`.

Releases from a cohort: as in `fed_avg`. Under a mechanism that noises the
client's gradients the term is added after the noise: it is a function of
weights that are already noised, so it is post-processing.
"""

import dataclasses
from typing import Any

import tensorflow_federated as tff

from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  proximal_strength: float,
  protection: protections.Protection,
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    proximal_strength: mu, at least 0.
    protection: What a privacy mechanism does on a client.
    **others: As for `fed_avg.build`.
  """

  def proximal_gradient(model):
    return add_proximal_term(protection.gradient(model), proximal_strength)

  return fed_avg.build(
    model,
    protection=dataclasses.replace(protection, gradient=proximal_gradient),
    **others,
  )


def add_proximal_term(
  gradient: training_loop.GradientFn, strength: float
) -> training_loop.GradientFn:
  """Returns the gradient of the loss with the proximal term."""

  def term(trainable, step):
    return tuple(
      strength * (w - start)
      for w, start in zip(trainable, step.start, strict=True)
    )

  return training_loop.add_term(gradient, term)
