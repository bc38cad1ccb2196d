"""What algorithms have in common in which some layers never leave a client.

The server's weights are the shared layers and, held fixed, the initial values
of the local ones, which are public. What a client sends is an update of the
shared layers, so by type nothing else is aggregated, clipped, noised or
released. Where clients remember (`remembering`), their local layers go through
the client-state channel: into the next participation of the same client, and
nowhere else.

Formal guarantees under user-level privacy, for clients that remember. What is
released in a round is the noised sum of clipped updates of shared layers. A
client's update is a function of its own data, the models that were released
before, its local layers, and keys that do not depend on data; its local layers
are such a function themselves, of the rounds that it took part in. So no data
of one client gets into the contribution of another, but through released
models. With one client more (P) or less (Q), fix the coins of all others, which
are the same in both. Given the models of earlier rounds, round t under Q is a
Gaussian around a known sum. Under P it is, averaged over what that client's own
earlier coins may have been, the mixture (1 - q) N(0) + q N(v) around the same
sum, |v| at most the clip norm: the coin of this round is independent of all
earlier ones. Both divergences of such a pair are jointly convex, so averages
over v, and at last over the coins of the others, are no worse than the worst
v, which is what is priced. Rounds compose adaptively as ever. The same holds
with everybody in each round (q = 1), for `local` reports, and for the noised
count of `gaussian_adaptive`.

It does not hold as proven for amplification by cohorts of a *fixed size*: there
neighbours have the same number of clients, both sides have hidden earlier
cohorts, and what is likely about them differs between the two. So that
combination is refused. Clients that forget (`forgetting`) are not affected.

Not covered: the local layers. They are neither clipped nor noised, and a
client that shows its own shows a function of its private data; so does whoever
publishes predictions made with them. Under `dp_sgd` every step is noised, those
of local layers included, and the steps of all participations are priced, none
of them amplified by who takes part: what a client keeps is then post-processing
of what is priced, and covered as the rest is.
"""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.aggregation import collecting
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import processes
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop
from tff_pipeline.models import split as splits

LOCAL = 'local_layers'
"""Name of the local layers in a client's state."""

# Apart from the steps on the shared layers, which the same key decides.
_LOCAL_STREAM = -3

Weights = tuple[tf.Tensor, ...]
Train = Callable[..., tuple[Weights, Weights, train_metrics.Metrics]]
"""(shared, local, element, learning rate or `None`) -> (shared, local, train
metrics) after a client's training; runs in a graph."""


def remembering(
  model: splits.SplitModel, train: Train, **others: Any
) -> tff.learning.templates.LearningProcess:
  """Returns the process whose clients keep their local layers.

  Args:
    model: The model; its initial weights are the global ones.
    train: What a client does.
    **others: As for `forgetting`.

  Returns:
    A process with client states, see `engines.state_channel`, that start as
    `initial_client_state`; without, if no layer is local.
  """
  if not model.has_local:
    return forgetting(model, train, **others)
  return _build(
    model,
    train,
    before=lambda element: tuple(element[training_loop.STATE][LOCAL]),
    keeps=processes.parts_like(model.initial_weights[1], (LOCAL,)),
    **others,
  )


def initial_client_state(model: splits.SplitModel) -> Mapping[str, Weights]:
  """Returns what a client of `remembering` has before it ever took part."""
  return collections.OrderedDict([(LOCAL, tuple(model.initial_weights[1]))])


def forgetting(
  model: splits.SplitModel, train: Train, **others: Any
) -> tff.learning.templates.LearningProcess:
  """Returns the process whose clients start from the initial local layers.

  Args:
    model: The model; its initial weights are the global ones.
    train: What a client does.
    **others: weighting, protection and rate as for `fed_avg.build`; the rest
      as for `fed_avg.compose`.
  """
  return _build(
    model,
    train,
    before=lambda _: tuple(map(tf.constant, model.initial_weights[1])),
    keeps=processes.NOTHING,
    **others,
  )


def _build(
  model: splits.SplitModel,
  train: Train,
  *,
  before: Callable[[training_loop.Element], Weights],
  keeps: processes.Parts,
  weighting: config.Weighting,
  protection: protections.Protection,
  rate: processes.Rate | None = None,
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the process whose clients train from these local layers.

  Args:
    model: The model.
    train: What a client does.
    before: Element -> the local layers that the client starts from.
    keeps: The client's state: its local layers, or nothing.
    weighting: Weight of an update in a weighted average.
    protection: What a privacy mechanism does on a client.
    rate: The clients' learning rate by round; unset means its optimizer's.
    **others: As for `fed_avg.compose`.
  """
  weigh = model_delta.weigh_by(weighting)

  def client_update(weights, element, learning_rate):
    start = tuple(weights.trainable)
    shared, local, metrics = train(
      start, before(element), element, learning_rate
    )
    update = tf.nest.map_structure(tf.subtract, start, shared)
    update, weight = weigh(update, start, element, metrics)
    if local:
      # What one client has trained is good as a whole or not at all.
      finite = tf.math.is_finite(keyed_noise.global_norm(local))
      weight = tf.where(finite, weight, np.nan)
    return model_delta.finish(
      model,
      update,
      weight,
      release=protection.release,
      metrics=metrics,
      element=element,
      kept={name: local for name in keeps},
    )

  work = processes.build(
    model,
    client_update,
    extra_spec=protection.extra_spec,
    rate=rate,
    keeps=keeps,
    collect=collecting.client_states,
  )
  return fed_avg.compose(model, client_work_process=work, **others)


def alternating(
  model: splits.SplitModel,
  process: Callable[..., tff.learning.templates.LearningProcess],
  *,
  client_optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  local_steps: int,
  local_learning_rate: float | None,
  protection: protections.Protection,
  local_rows: slice = slice(None),
  shared_rows: slice = slice(None),
  **others: Any,
) -> tff.learning.templates.LearningProcess:
  """Returns the process that trains local layers first, then the shared ones.

  Args:
    model: The model; its initial weights are the global ones.
    process: `remembering` or `forgetting`.
    client_optimizer: Of both; starts afresh for each.
    schedule: Epochs on the shared layers, and the batches of both.
    local_steps: Steps on the local layers.
    local_learning_rate: Of these; unset means that of the shared ones.
    protection: What happens to the update; may not noise steps, for only those
      on shared layers are priced.
    local_rows: Which examples the local layers are trained on.
    shared_rows: Which ones the shared layers are trained on.
    **others: As for `process`.

  Raises:
    ValueError: If the protection noises steps.
  """
  if protection.gradient is not training_loop.batch_gradient:
    raise ValueError('Expected no noise on steps: some would not be priced.')
  local_schedule = training_loop.Schedule(
    epochs=local_steps,  # As many as there can be, if each is one step.
    max_steps=local_steps,
    batch_size=schedule.batch_size,
    shuffle=schedule.shuffle,
  )

  def train_part(part, weights, element, *, learning_rate, schedule):
    return training_loop.train(
      part,
      training_loop.batch_gradient(part),
      optimizer=client_optimizer,
      schedule=schedule,
      weights=weights,
      element=element,
      learning_rate=learning_rate,
    )

  def train(shared, local, element, learning_rate):
    shared = tuple(shared)
    if local_steps and model.has_local:
      local, _ = train_part(
        model.swapped(),
        (local, shared),
        _rows(element, local_rows, stream=_LOCAL_STREAM),
        learning_rate=(
          learning_rate
          if local_learning_rate is None
          else tf.constant(local_learning_rate)
        ),
        schedule=local_schedule,
      )
    shared, metrics = train_part(
      model,
      (shared, local),
      _rows(element, shared_rows),
      learning_rate=learning_rate,
      schedule=schedule,
    )
    return shared, local, metrics

  return process(model, train, protection=protection, **others)


def _rows(
  element: training_loop.Element, rows: slice, *, stream: int | None = None
) -> training_loop.Element:
  """Returns an element with some of its examples, and a key of its own."""
  chosen = element.copy()
  for name in ('x', 'y'):
    chosen[name] = tf.nest.map_structure(lambda t: t[rows], element[name])
  if stream is not None:
    key = element[training_loop.KEY]
    chosen[training_loop.KEY] = keyed_noise.derive_seed(key, stream)
  return chosen
