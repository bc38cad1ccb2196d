"""Client work whose result is the change of the model's weights."""

from collections.abc import Callable, Mapping
import dataclasses
import types
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.client_work import processes
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop

Weigh = Callable[..., tuple[Any, tf.Tensor]]
"""(update, weights at the start, element, metrics) -> (update, its weight in
an average; float32)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
  """What an algorithm's client keeps from one participation to the next.

  Attributes:
    keeps: Names of its parts, each like an update; zeros before the first
      participation. They are in the `client_state` of the element.
    call: (update, element) -> the parts after this participation.
  """

  keeps: tuple[str, ...]
  call: Callable[[Any, training_loop.Element], Mapping[str, Any]]


NO_MEMORY = Memory(keeps=(), call=lambda update, element: {})


def weigh_by(weighting: config.Weighting) -> Weigh:
  """Returns the weight 1, or the number of examples processed.

  Where there are stragglers it is the number of examples that a client has: one
  that gets through fewer epochs does not weigh less (Li et al. 2020, Algorithm
  2). So it is where steps are noised, since that number is public, and the size
  of a Poisson batch is not.
  """

  def weigh(update, start, element, metrics):
    del start
    if weighting is not config.Weighting.NUM_EXAMPLES:
      return update, tf.constant(1.0)
    examples = metrics['num_examples']
    if {training_loop.EPOCHS, training_loop.NOISE_KEY} & set(element):
      examples = training_loop.size(element)
    return update, tf.cast(examples, tf.float32)

  return weigh


def build(
  model: tff.learning.models.FunctionalModel,
  gradient: training_loop.GradientFn,
  *,
  optimizer: tff.learning.optimizers.Optimizer,
  schedule: training_loop.Schedule,
  weighting: config.Weighting | Weigh,
  release: protections.Release,
  extra_spec: Mapping[str, tf.TensorSpec],
  rate: processes.Rate | None = None,
  memory: Memory = NO_MEMORY,
  collect: processes.Collect | None = None,
) -> tff.learning.templates.ClientWorkProcess:
  """Returns client work whose result is initial minus trained weights.

  Args:
    model: The model.
    gradient: What a step descends along.
    optimizer: The client's optimizer; starts afresh each round.
    schedule: Epochs and batches.
    weighting: Weight of the update, see `weigh_by`; or a function of its own.
    release: What happens to the update before it leaves the client.
    extra_spec: What the element holds besides x, y and the shuffle key.
    rate: The optimizer's learning rate; unset means its own, in all rounds.
    memory: What the client keeps, beside what `release` does.
    collect: As for `processes.build`.

  Returns:
    A process as of `processes.build`. An update that is not finite is handled
    as `finish` says.
  """
  weigh = weighting if callable(weighting) else weigh_by(weighting)

  def client_update(weights, element, learning_rate):
    start = (tuple(weights.trainable), weights.non_trainable)
    trained, metrics = training_loop.train(
      model,
      gradient,
      optimizer=optimizer,
      schedule=schedule,
      weights=start,
      element=element,
      learning_rate=learning_rate,
    )
    update = tf.nest.map_structure(tf.subtract, start[0], trained)
    return finish(
      model,
      *weigh(update, start, element, metrics),
      release=release,
      metrics=metrics,
      element=element,
      kept=memory.call(update, element),
    )

  return processes.build(
    model,
    client_update,
    extra_spec={**extra_spec, **schedule.extra_spec},
    rate=rate,
    keeps=processes.parts_like(
      model.initial_weights[0], (*memory.keeps, *release.keeps)
    ),
    collect=collect,
  )


def finish(
  model: tff.learning.models.FunctionalModel,
  update: Any,
  weight: tf.Tensor,
  *,
  release: protections.Release,
  metrics: train_metrics.Metrics,
  element: training_loop.Element,
  kept: Mapping[str, Any] = types.MappingProxyType({}),
) -> tuple[
  tff.learning.templates.ClientResult,
  train_metrics.Metrics,
  Mapping[str, Any],
]:
  """Returns what leaves the client, and what it keeps.

  An update whose norm or weight is not finite becomes zero as a whole, with
  weight zero and its train metrics left out, before `release` sees it; the
  client then keeps what it had.

  Args:
    model: The model.
    update: Like the trainable weights.
    weight: Its weight in an average.
    release: What happens to it at last.
    metrics: Unfinalized train metrics.
    element: The client's element.
    kept: What the algorithm's client keeps, if the update is good.
  """
  # The weight apart: the square of a large one would overflow in the norm.
  good = tf.math.is_finite(weight)
  if kept:
    good &= tf.math.is_finite(keyed_noise.global_norm(kept))
  update, _, finite = keyed_noise.zero_if_non_finite(update, condition=good)
  weight = tf.where(finite, weight, tf.zeros_like(weight))
  plain = train_metrics.zero(model)
  nothing = train_metrics.zero(
    model, counts=tuple(name for name in metrics if name not in plain)
  )
  metrics = tf.nest.map_structure(
    lambda m, zero: tf.where(finite, m, zero), nothing | metrics, nothing
  )
  metrics['rejected_updates'] = tf.cast(~finite, tf.int64)
  update, counts, residue = release.call(update, element)
  metrics |= {name: tf.constant(0, tf.int64) for name in release.counts}
  metrics = train_metrics.add_counts(metrics, counts)
  return (
    tff.learning.templates.ClientResult(update=update, update_weight=weight),
    metrics,
    {
      name: tuple(
        tf.where(finite, new, old)
        for new, old in zip(
          part, element[training_loop.STATE][name], strict=True
        )
      )
      for name, part in {**kept, **residue}.items()
    },
  )
