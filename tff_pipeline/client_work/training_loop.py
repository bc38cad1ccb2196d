"""The dense training loop: mini-batches sliced from a client's one element."""

import collections
from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.client_work import train_metrics

KEY = 'key'  # Decides shuffles and dropout; derives from the seed.
NOISE_KEY = 'noise_key'  # Decides DP noise; derives from the run's noise key.
KEY_SPEC = tf.TensorSpec([2], tf.int64)
INDEX = 'client_index'  # Which client this is; comes back with its state.
INDEX_SPEC = tf.TensorSpec([], tf.int64)
STATE = 'client_state'  # What the client kept from its last participation.
EPOCHS = 'epochs'  # What the client gets through in this round.
EPOCHS_SPEC = tf.TensorSpec([], tf.int64)

# No epoch has this number: epochs of a client shuffle by the same key.
_STEP_STREAM = -1
# Of the noise key; apart from the noise of steps and updates.
_BATCH_STREAM = 2

Element = collections.OrderedDict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """How a client walks over its examples.

  Attributes:
    epochs: Passes over the examples.
    batch_size: Examples in a step; the last batch of an epoch may be smaller.
    sampling_rate: In the place of `batch_size`: the chance of each example to
      be in a step's batch, by its own coin. As many steps as `epochs` passes
      have, rounded, whatever the client's size.
    shuffle: Whether each epoch has a fresh order, drawn from the client's key.
    max_examples: A client trains on its first ones only; unset means all. What
      feeds the client leaves out the others, so that they are no part of its
      data for any algorithm.
    max_steps: Steps after which a client stops, over all epochs, in the middle
      of one if need be; unset means never.
    straggler_share: Share of a cohort that gets through fewer epochs, as many
      as its element says; unset means that no element says so.
  """

  epochs: int
  batch_size: int | None = None
  sampling_rate: float | None = None
  shuffle: config.Shuffle
  max_examples: int | None = None
  max_steps: int | None = None
  straggler_share: float | None = None

  @property
  def extra_spec(self) -> dict[str, tf.TensorSpec]:
    """What a client's element has to say for this."""
    return {} if self.straggler_share is None else {EPOCHS: EPOCHS_SPEC}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Step:
  """Where in a client's training a gradient is taken.

  Attributes:
    number: Steps before this one in this round, over all epochs; int64.
    seed: int64[2] for the model's own randomness (dropout); never for noise.
    batch_size: Nominal number of examples in its batch, which is public; what
      is noised is divided by it.
    start: The trainable weights at the start of the round.
    element: The client's whole element, keys included.
  """

  number: tf.Tensor
  seed: tf.Tensor
  batch_size: tf.Tensor | int
  start: tuple[tf.Tensor, ...]
  element: Element


class Gradient(NamedTuple):
  """What a step descends along, and what it saw.

  Attributes:
    value: Like the trainable weights.
    loss: Mean loss of the batch, before the step.
    output: The model's output for the batch.
    counts: Integer scalars under the names that the `GradientFn` declares.
  """

  value: Any
  loss: tf.Tensor
  output: Any
  counts: Mapping[str, tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GradientFn:
  """How a step finds its direction.

  Attributes:
    call: ((trainable, non-trainable) weights, x, y, step) -> `Gradient`. A pure
      function: all its randomness comes from the step.
    counts: Names of what it counts; they become train metrics.
  """

  call: Callable[[Any, Any, Any, Step], Gradient]
  counts: tuple[str, ...] = ()


def batch_gradient(
  model: tff.learning.models.FunctionalModel,
) -> GradientFn:
  """Returns the gradient of the batch's mean loss."""

  def gradient(weights, x, y, step):
    trainable, _ = weights
    with tf.GradientTape() as tape:
      tape.watch(trainable)
      output = model.predict_on_batch(weights, x, training=step.seed)
      loss = model.loss(output=output, label=y)
    return Gradient(tape.gradient(loss, trainable), loss, output, {})

  return GradientFn(call=gradient)


def add_term(
  gradient: GradientFn,
  term: Callable[[tuple[tf.Tensor, ...], Step], tuple[tf.Tensor, ...]],
) -> GradientFn:
  """Returns a gradient with one more term.

  Args:
    gradient: The gradient of the loss.
    term: (trainable weights, step) -> what is added to it, per tensor.
  """

  def call(weights, x, y, step):
    found = gradient.call(weights, x, y, step)
    added = term(weights[0], step)
    value = tuple(g + t for g, t in zip(found.value, added, strict=True))
    return found._replace(value=value)

  return dataclasses.replace(gradient, call=call)


def element_spec(
  model: tff.learning.models.FunctionalModel,
  extra: Mapping[str, tf.TensorSpec],
) -> Element:
  """Returns the spec of a client's one element: x, y, shuffle key, extras."""
  return Element(model.input_spec, **{KEY: KEY_SPEC}, **extra)


def train(
  model: tff.learning.models.FunctionalModel,
  gradient: GradientFn,
  *,
  optimizer: tff.learning.optimizers.Optimizer,
  schedule: Schedule,
  weights: tuple[Any, Any],
  element: Element,
  learning_rate: tf.Tensor | None = None,
) -> tuple[Any, train_metrics.Metrics]:
  """Trains on one client's examples; runs inside a graph.

  The arithmetic is that of TFF's `build_functional_model_delta_client_work`.

  Args:
    model: A model of `models.functional`, whose `training` argument may be the
      seed of its own randomness.
    gradient: What a step descends along.
    optimizer: The client's optimizer; starts afresh.
    schedule: Epochs and batches.
    weights: (trainable, non-trainable) to start from.
    element: x and y of shape [n, ...], and the keys; its own number of epochs,
      if the schedule has stragglers.
    learning_rate: The optimizer's in this round; unset means its own.

  Returns:
    The trainable weights after training, and the unfinalized train metrics of
    what was seen before each step.
  """
  start, non_trainable = tuple(weights[0]), weights[1]
  max_steps = schedule.max_steps or tf.int64.max
  epochs = tf.cast(element.get(EPOCHS, schedule.epochs), tf.int32)
  num_examples = size(element)
  batch_size = schedule.batch_size
  if schedule.sampling_rate is not None:
    batch_size = schedule.sampling_rate * tf.cast(num_examples, tf.float32)
  specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in start)
  state = (
    start,
    with_learning_rate(optimizer, optimizer.initialize(specs), learning_rate),
    train_metrics.zero(model, counts=gradient.counts),
    tf.constant(0, tf.int64),
  )

  def take_step(state, rows):
    trainable, optimizer_state, metrics, number = state
    x, y = tf.nest.map_structure(
      lambda t: tf.gather(t, rows), (element['x'], element['y'])
    )
    step = Step(
      number=number,
      seed=step_seed(element[KEY], number),
      batch_size=batch_size,
      start=start,
      element=element,
    )
    found = gradient.call((trainable, non_trainable), x, y, step)
    optimizer_state, trainable = optimizer.next(
      optimizer_state, trainable, found.value
    )
    metrics = train_metrics.add_batch(
      model,
      metrics,
      loss=found.loss,
      output=found.output,
      y=y,
      count=tf.size(rows),
    )
    metrics = train_metrics.add_counts(metrics, found.counts)
    return tuple(trainable), optimizer_state, metrics, number + 1

  def run_epoch(epoch, state):
    order = epoch_order(num_examples, element[KEY], epoch, schedule.shuffle)
    _, state = tf.while_loop(
      lambda first, s: (first < num_examples) & (s[-1] < max_steps),
      lambda first, s: (
        first + schedule.batch_size,
        take_step(s, order[first : first + schedule.batch_size]),
      ),
      (tf.constant(0), state),
      parallel_iterations=1,
    )
    return epoch + 1, state

  def run_epochs(state):
    _, state = tf.while_loop(
      lambda epoch, s: (epoch < epochs) & (s[-1] < max_steps),
      run_epoch,
      (tf.constant(0), state),
      parallel_iterations=1,
    )
    return state

  def run_sampled_steps(state):
    rate = schedule.sampling_rate
    steps = tf.cast(tf.round(tf.cast(epochs, tf.float64) / rate), tf.int64)
    steps = tf.where(num_examples > 0, tf.minimum(steps, max_steps), 0)
    return tf.while_loop(
      lambda *s: s[-1] < steps,
      lambda *s: take_step(
        s, sampled_rows(num_examples, element[NOISE_KEY], s[-1], rate)
      ),
      state,
      parallel_iterations=1,
    )

  sampled = schedule.sampling_rate is not None
  trainable, _, metrics, _ = (run_sampled_steps if sampled else run_epochs)(
    state
  )
  return trainable, metrics


def with_learning_rate(
  optimizer: tff.learning.optimizers.Optimizer,
  state: Any,
  learning_rate: tf.Tensor | float | None,
) -> Any:
  """Returns an optimizer's state with this rate; unset leaves it as it is."""
  if learning_rate is None:
    return state
  return optimizer.set_hparams(
    state, {tff.learning.optimizers.LEARNING_RATE_KEY: learning_rate}
  )


def size(element: Element) -> tf.Tensor:
  """Returns a client's number of examples; int32."""
  return tf.shape(tf.nest.flatten(element['x'])[0])[0]


def step_seed(key: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
  """Returns the seed of the model's own randomness in a step; int64[2]."""
  return keyed_noise.derive_seed(key, _STEP_STREAM, number)


def epoch_order(
  num_examples: tf.Tensor,
  key: tf.Tensor,
  epoch: tf.Tensor,
  shuffle: config.Shuffle,
) -> tf.Tensor:
  """Returns the rows in the order of this epoch; int32[num_examples]."""
  rows = tf.range(num_examples)
  if shuffle is config.Shuffle.OFF:
    return rows
  seed = keyed_noise.derive_seed(key, epoch)
  return tf.random.experimental.stateless_shuffle(rows, seed)


def sampled_rows(
  num_examples: tf.Tensor, noise_key: tf.Tensor, number: tf.Tensor, rate: float
) -> tf.Tensor:
  """Returns the rows of a step's Poisson batch; int32[n], n may be 0.

  The coins are as secret as the noise, since amplification hangs on them.

  Args:
    num_examples: What each has a coin of its own.
    noise_key: The client's noise key in this round.
    number: Steps before this one in this round.
    rate: Chance of an example.
  """
  seed = keyed_noise.derive_seed(noise_key, _BATCH_STREAM, number)
  # In float32 the chance could be above the rate by more than rounding.
  coins = tf.random.stateless_uniform([num_examples], seed, dtype=tf.float64)
  return tf.cast(tf.where(coins < rate)[:, 0], tf.int32)
