"""q-FedAvg: clients with a large loss weigh more, so that accuracy is even.

Li, Sanjabi, Beirami, Smith, "Fair resource allocation in federated learning",
ICLR 2020 (arXiv:1905.10497), Algorithm 2, with q = `fairness`, F_k the mean
loss of client k and L = 1 / client learning rate:

  client k:  w_k <- local steps from w;  d_k = w - w_k
             Delta_k = L F_k(w)^q d_k
             h_k = q F_k(w)^(q-1) |L d_k|^2 + L F_k(w)^q
  server:    w <- w - sum_k Delta_k / sum_k h_k

As sent here: the update u_k = Delta_k / h_k = d_k / (1 + q L |d_k|^2 / F_k(w))
with the weight h_k / L in an ordinary weighted mean, which is the same
quotient. The weight is scale-free in L, and 1 at q = 0, where it is `fed_avg`
with uniform weights. The paper draws clients with probability proportional to
their examples; here cohorts are what `--cohort.sampling` says.

It was chosen over agnostic federated learning (Mohri et al. 2019): one leaf
spans from the plain mean (q = 0) to nearly the worst client (large q), and the
server keeps no weight for each client.

Releases from a cohort: the weighted sum of updates, the sum of weights, which
are un-noised functions of private losses, and train metrics. So it is refused
under user-level privacy.
"""

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import full_pass
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import training_loop


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  fairness: float,
  client_learning_rate: float,
  schedule: training_loop.Schedule,
  weighting: config.Weighting,
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process.

  Args:
    model: The model; its initial weights are the global ones.
    fairness: q, at least 0.
    client_learning_rate: 1/L.
    schedule: Epochs and batches on a client.
    weighting: Must be uniform: the losses weigh.
    **others: As for `fed_avg.build`.

  Raises:
    ValueError: If updates would be weighted by examples as well.
  """
  if weighting is not config.Weighting.UNIFORM:
    raise ValueError(f'Expected uniform weighting, found {weighting}.')
  return fed_avg.build(
    model,
    schedule=schedule,
    weighting=weigh_by_loss(
      model,
      fairness=fairness,
      learning_rate=client_learning_rate,
      batch_size=schedule.batch_size,
    ),
    **others,
  )


def weigh_by_loss(
  model: tff.learning.models.FunctionalModel,
  *,
  fairness: float,
  learning_rate: float,
  batch_size: int,
) -> model_delta.Weigh:
  """Returns the function from d_k to (u_k, h_k / L); costs one more pass.

  A client whose loss is exactly zero has nothing to improve: weight and update
  are zero, unless q is 0.
  """

  def weigh(update, start, element, metrics):
    del metrics
    if not fairness:
      return update, tf.constant(1.0)
    loss = full_pass.loss(
      model, batch_size=batch_size, weights=start, element=element
    )
    norm_squared = tf.square(keyed_noise.global_norm(update))
    curvature = 1.0 + tf.math.divide_no_nan(
      fairness * norm_squared / learning_rate, loss
    )
    share = tf.where(loss > 0, 1.0 / curvature, 0.0)
    scaled = tf.nest.map_structure(lambda d: d * share, update)
    return scaled, tf.pow(loss, fairness) * curvature

  return weigh
