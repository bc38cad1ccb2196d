"""Example-level DP-SGD on the client.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep learning with
differential privacy", CCS 2016 (arXiv:1607.00133), Algorithm 1, with the
client's own optimizer in the place of its descent step:

  g_i  <- gradient of the loss of example i
  g    <- (sum_i g_i / max(1, |g_i| / C) + N(0, (z C)^2 I)) / batch size

A gradient that is not finite counts as zero. The batch size is the nominal,
public one, also in the last batch of an epoch, which may hold fewer examples
and gets the same noise, and in a Poisson batch, whose size varies.

Formal guarantees: each step is the Gaussian mechanism with noise multiplier z
for the examples of its batch, if one example is replaced by zero (its gradient
counts as zero; the client's number of examples stays public). Replacing an
example by another moves the sum by up to 2 C: noise multiplier z/2.

  shuffled batches      an epoch puts each example into one batch: a round of
                        E epochs is E such mechanisms on each example, without
                        amplification
  Poisson batches of    each step is that mechanism on a Poisson sample, and
  rate q                round(E / q) of them are a round, of every client

What follows (the optimizer's state, further steps of the round on other
batches, the server) is post-processing. Noise and coins are functions of the
client's noise key, step and tensor.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import keyed_noise
from tff_pipeline.client_work import example_norms
from tff_pipeline.client_work import training_loop

# Apart from the noise of the finished update, which the same key decides.
_STREAM = 0

Weights = tuple[tf.Tensor, ...]


def gradient(
  model: tff.learning.models.FunctionalModel,
  *,
  clip_norm: float,
  noise_multiplier: float,
) -> training_loop.GradientFn:
  """Returns the noised mean of clipped per-example gradients.

  Args:
    model: The model.
    clip_norm: Largest L2 norm of one example's gradient.
    noise_multiplier: Noise standard deviation on the sum, over clip_norm.

  Returns:
    The gradient function. It reads the client's noise key, and counts clipped
    and rejected (not finite) examples. Its loss is that of the whole batch.
  """
  clipped_sum = _clipped_sum(model)

  def noised_mean(weights, x, y, step):
    trainable, non_trainable = tuple(weights[0]), weights[1]

    # A Poisson batch can be empty, which `tf.vectorized_map` cannot take.
    total, norms = tf.cond(
      tf.size(tf.nest.flatten(y)[0]) > 0,
      lambda: clipped_sum(
        model,
        (trainable, non_trainable),
        x,
        y,
        seed=step.seed,
        clip_norm=clip_norm,
      ),
      lambda: (tuple(map(tf.zeros_like, trainable)), tf.zeros([0])),
    )
    noised = keyed_noise.add_gaussian_noise(
      total,
      stddev=noise_multiplier * clip_norm,
      seed=keyed_noise.derive_seed(
        step.element[training_loop.NOISE_KEY], _STREAM, step.number
      ),
    )
    finite = tf.math.is_finite(norms)
    output = model.predict_on_batch(weights, x, training=step.seed)
    return training_loop.Gradient(
      value=tf.nest.map_structure(
        lambda t: t / tf.cast(step.batch_size, t.dtype), noised
      ),
      loss=model.loss(output=output, label=y),
      output=output,
      counts={
        'clipped_examples': tf.math.count_nonzero(finite & (norms > clip_norm)),
        'rejected_examples': tf.math.count_nonzero(~finite),
      },
    )

  return training_loop.GradientFn(
    call=noised_mean, counts=('clipped_examples', 'rejected_examples')
  )


def _clipped_sum(
  model: tff.learning.models.FunctionalModel,
) -> Callable[..., tuple[Weights, tf.Tensor]]:
  """Returns the cheapest of the three ways that the model allows."""
  operations, covered = _gradient_traits(model)
  if any('While' in op or 'Random' in op for op in operations):
    return _looped_sum
  return _batched_sum if covered else _vectorized_sum


def _example_loss(
  model: tff.learning.models.FunctionalModel,
  weights: tuple[Any, Any],
  x: Any,
  y: Any,
  seed: tf.Tensor,
) -> tf.Tensor:
  x, y = tf.nest.map_structure(lambda t: t[tf.newaxis], (x, y))
  output = model.predict_on_batch(weights, x, training=seed)
  return model.loss(output=output, label=y)


def _example_losses(
  model: tff.learning.models.FunctionalModel, output: Any, y: Any
) -> tf.Tensor:
  """Returns the loss of each example of a batch; float[n]."""

  def loss(example):
    output, label = tf.nest.map_structure(lambda t: t[tf.newaxis], example)
    return model.loss(output=output, label=label)

  return tf.vectorized_map(loss, (output, y))


def _dense_gradients(
  tape: tf.GradientTape, loss: tf.Tensor, weights: Weights
) -> Weights:
  """Returns gradients as dense tensors; an embedding's are sparse at first.

  Fails if the loss does not depend on a weight.
  """
  return tuple(map(tf.convert_to_tensor, tape.gradient(loss, weights)))


def _example_gradients(
  model: tff.learning.models.FunctionalModel,
  weights: tuple[Weights, Any],
  x: Any,
  y: Any,
  seed: tf.Tensor,
) -> tuple[Weights, tf.Tensor]:
  """Returns one example's gradients and their global norm."""
  trainable, non_trainable = weights
  with tf.GradientTape() as tape:
    tape.watch(trainable)
    loss = _example_loss(model, (trainable, non_trainable), x, y, seed)
  gradients = _dense_gradients(tape, loss, trainable)
  return gradients, keyed_noise.global_norm(gradients)


def _batched_sum(
  model: tff.learning.models.FunctionalModel,
  weights: tuple[Weights, Any],
  x: Any,
  y: Any,
  *,
  seed: tf.Tensor,
  clip_norm: float,
) -> tuple[Weights, tf.Tensor]:
  """Returns the sum of clipped gradients, and all norms before clipping.

  Two passes over the batch as a whole: one for the norms (`example_norms`), and
  one whose loss weighs each example by its clip factor, so that its gradient is
  the sum. No example's gradient is ever held. In the second pass a rejected
  example is replaced by an accepted one at weight zero, for zero times an
  infinite gradient would be undefined.
  """
  trainable, non_trainable = tuple(map(tf.identity, weights[0])), weights[1]
  with tf.GradientTape() as tape:
    tape.watch(trainable)
    output, record = example_norms.record(
      model, (trainable, non_trainable), x, seed=seed
    )
    losses = _example_losses(model, output, y)
  norms = record.norms(tape, losses)

  def weighted(chosen, factors):
    x_chosen, y_chosen = _chosen(x, y, chosen)
    with tf.GradientTape() as tape:
      tape.watch(trainable)
      output = model.predict_on_batch(
        (trainable, non_trainable), x_chosen, training=seed
      )
      losses = _example_losses(model, output, y_chosen)
      loss = tf.reduce_sum(factors * losses)
    return _dense_gradients(tape, loss, trainable)

  return _sum_of_accepted(weighted, norms, clip_norm), norms


def _vectorized_sum(
  model: tff.learning.models.FunctionalModel,
  weights: tuple[Weights, Any],
  x: Any,
  y: Any,
  *,
  seed: tf.Tensor,
  clip_norm: float,
) -> tuple[Weights, tf.Tensor]:
  """Returns what `_batched_sum` does, for models with layers of any kind.

  Here `tf.vectorized_map` makes one program for the batch out of that of one
  example, whose gradients are held while their norms are taken.
  """
  # A tape does not follow tensors into this graph from the one around it.
  trainable, non_trainable = tuple(map(tf.identity, weights[0])), weights[1]
  weights = trainable, non_trainable
  rows = tf.range(tf.shape(tf.nest.flatten(x)[0])[0])

  def example_norm(args):
    x, y, row = args
    seed_here = keyed_noise.derive_seed(seed, row)
    return _example_gradients(model, weights, x, y, seed_here)[1]

  norms = tf.vectorized_map(example_norm, (x, y, rows))

  def weighted(chosen, factors):
    def example_loss(args):
      (x, y), row = args
      seed_here = keyed_noise.derive_seed(seed, row)
      return _example_loss(model, weights, x, y, seed_here)

    with tf.GradientTape() as tape:
      tape.watch(trainable)
      losses = tf.vectorized_map(example_loss, (_chosen(x, y, chosen), chosen))
      loss = tf.reduce_sum(factors * losses)
    return _dense_gradients(tape, loss, trainable)

  return _sum_of_accepted(weighted, norms, clip_norm), norms


def _sum_of_accepted(
  weighted: Callable[[tf.Tensor, tf.Tensor], Weights],
  norms: tf.Tensor,
  clip_norm: float,
) -> Weights:
  """Returns the sum of clipped gradients; zeros if no norm is finite.

  Args:
    weighted: (rows of the batch, factors) -> gradient of the sum of the losses
      of these rows, each times its factor.
    norms: float[n], of the gradients.
    clip_norm: Largest norm of an addend.
  """
  rows = tf.range(tf.size(norms))
  finite = tf.math.is_finite(norms)
  any_accepted = tf.reduce_max(tf.where(finite, rows, 0))
  chosen = tf.where(finite, rows, any_accepted)
  total = weighted(chosen, keyed_noise.clip_factor(norms, clip_norm))
  accepted = tf.reduce_any(finite)
  return tuple(tf.where(accepted, t, tf.zeros_like(t)) for t in total)


def _chosen(x: Any, y: Any, rows: tf.Tensor) -> tuple[Any, Any]:
  return tf.nest.map_structure(lambda t: tf.gather(t, rows), (x, y))


def _looped_sum(
  model: tff.learning.models.FunctionalModel,
  weights: tuple[Weights, Any],
  x: Any,
  y: Any,
  *,
  seed: tf.Tensor,
  clip_norm: float,
) -> tuple[Weights, tf.Tensor]:
  """Returns what `_batched_sum` does, one example after another."""
  size = tf.shape(tf.nest.flatten(x)[0])[0]

  def add_example(row, total, norms):
    x_row, y_row = tf.nest.map_structure(lambda t: t[row], (x, y))
    gradients, norm = _example_gradients(
      model, weights, x_row, y_row, keyed_noise.derive_seed(seed, row)
    )
    clipped, _ = keyed_noise.clip(gradients, clip_norm)
    total = tuple(map(tf.add, total, clipped))
    return row + 1, total, norms.write(row, norm)

  _, total, norms = tf.while_loop(
    lambda row, *_: row < size,
    add_example,
    (
      tf.constant(0),
      tuple(map(tf.zeros_like, weights[0])),
      tf.TensorArray(weights[0][0].dtype, size),
    ),
    parallel_iterations=1,
  )
  return total, norms.stack()


def _gradient_traits(
  model: tff.learning.models.FunctionalModel,
) -> tuple[set[str], bool]:
  """Returns what the gradient of one example is made of.

  `tf.vectorized_map` cannot take a Keras recurrent layer, whose loop keeps its
  history in variant tensors, nor random numbers whose seeds differ between
  examples. So the graph is searched for both; a search by layer type would miss
  a user's own.

  Returns:
    The kinds of its operations, and whether `example_norms` covers the model.
  """
  with tf.Graph().as_default() as graph:
    weights = tf.nest.map_structure(tf.constant, tuple(model.initial_weights))
    x, y = (
      tf.nest.map_structure(
        lambda s: tf.compat.v1.placeholder(s.dtype, s.shape[1:]), spec
      )
      for spec in model.input_spec.values()
    )
    seed = tf.zeros([2], tf.int64)
    weights = tuple(weights[0]), weights[1]
    _example_gradients(model, weights, x, y, seed)
    batch = tf.nest.map_structure(lambda t: t[tf.newaxis], x)
    _, record = example_norms.record(model, weights, batch, seed=seed)
  definition = graph.as_graph_def()
  functions = [f.node_def for f in definition.library.function]
  operations = {
    node.op for nodes in (definition.node, *functions) for node in nodes
  }
  return operations, record.covers(len(weights[0]))
