"""Example-level DP-SGD on the client.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep learning with
differential privacy", CCS 2016 (arXiv:1607.00133), Algorithm 1, with the
client's own optimizer in the place of its descent step:

  g_i  <- gradient of the loss of example i
  g    <- (sum_i g_i / max(1, |g_i| / C) + N(0, (z C)^2 I)) / batch size

A gradient that is not finite counts as zero. The batch size is the nominal,
public one, also in the last batch of an epoch, which may hold fewer examples
and gets the same noise.

Formal guarantees: each step is the Gaussian mechanism with noise multiplier z
for the examples of its batch, if one example is replaced by zero (its gradient
counts as zero; the client's number of examples, and with it the number of
steps, stays public). Replacing an example by another moves the sum by up to
2 C: noise multiplier z/2. An epoch puts each example into one batch, so a
round of E epochs is E such mechanisms on each example, without amplification
by sampling: batches are shuffled, not sampled. What follows (the optimizer's
state, further steps of the round on other batches, the server) is
post-processing. Noise is a function of the client's noise key, step and
tensor.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import keyed_noise
from tff_pipeline.client_work import training_loop

# Apart from the noise of the finished update, which the same key decides.
_STREAM = 0

# (trainable weights, x, y, seed) of one example, without a batch dimension ->
# its loss.
_LossFn = Callable[..., tf.Tensor]
Weights = tuple[tf.Tensor, ...]


def gradient(
  model: tff.learning.models.FunctionalModel,
  *,
  batch_size: int,
  clip_norm: float,
  noise_multiplier: float,
) -> training_loop.GradientFn:
  """Returns the noised mean of clipped per-example gradients.

  Args:
    model: The model.
    batch_size: Nominal batch size, which the noised sum is divided by.
    clip_norm: Largest L2 norm of one example's gradient.
    noise_multiplier: Noise standard deviation on the sum, over clip_norm.

  Returns:
    The gradient function. It reads the client's noise key, and counts clipped
    and rejected (not finite) examples. Its loss is that of the whole batch.
  """
  clipped_sum = _vectorized_sum if _vectorizes(model) else _looped_sum

  def noised_mean(weights, x, y, step):
    trainable, non_trainable = tuple(weights[0]), weights[1]

    def loss_fn(trainable, x, y, seed):
      return _example_loss(model, (trainable, non_trainable), x, y, seed)

    # A Poisson batch can be empty, which `tf.vectorized_map` cannot take.
    total, norms = tf.cond(
      tf.size(tf.nest.flatten(y)[0]) > 0,
      lambda: clipped_sum(
        loss_fn, trainable, x, y, seed=step.seed, clip_norm=clip_norm
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
      value=tf.nest.map_structure(lambda t: t / batch_size, noised),
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


def _dense_gradients(
  tape: tf.GradientTape, loss: tf.Tensor, weights: Weights
) -> Weights:
  """Returns gradients as dense tensors; an embedding's are sparse at first.

  Fails if the loss does not depend on a weight.
  """
  return tuple(map(tf.convert_to_tensor, tape.gradient(loss, weights)))


def _example_gradients(
  loss_fn: _LossFn, weights: Weights, x: Any, y: Any, seed: tf.Tensor
) -> tuple[Weights, tf.Tensor]:
  """Returns one example's gradients and their global norm."""
  with tf.GradientTape() as tape:
    tape.watch(weights)
    loss = loss_fn(weights, x, y, seed)
  gradients = _dense_gradients(tape, loss, weights)
  return gradients, keyed_noise.global_norm(gradients)


def _vectorized_sum(
  loss_fn: _LossFn,
  weights: Weights,
  x: Any,
  y: Any,
  *,
  seed: tf.Tensor,
  clip_norm: float,
) -> tuple[Weights, tf.Tensor]:
  """Returns the sum of clipped gradients, and all norms before clipping.

  Two passes: one for the norms, and one whose loss weighs each example by its
  clip factor, so that its gradient is the sum. The clipped gradients of all
  examples are never held at once; that takes 1.5 times as long. In the second
  pass a rejected example is replaced by an accepted one at weight zero, for
  zero times an infinite gradient would be undefined.
  """
  # A tape does not follow tensors into this graph from the one around it.
  weights = tuple(map(tf.identity, weights))
  rows = tf.range(tf.shape(tf.nest.flatten(x)[0])[0])

  def example_norm(args):
    x, y, row = args
    seed_here = keyed_noise.derive_seed(seed, row)
    return _example_gradients(loss_fn, weights, x, y, seed_here)[1]

  norms = tf.vectorized_map(example_norm, (x, y, rows))
  finite = tf.math.is_finite(norms)
  any_accepted = tf.reduce_max(tf.where(finite, rows, 0))
  chosen = tf.where(finite, rows, any_accepted)
  x, y = tf.nest.map_structure(lambda t: tf.gather(t, chosen), (x, y))

  with tf.GradientTape() as tape:
    tape.watch(weights)
    losses = tf.vectorized_map(
      lambda args: loss_fn(
        weights, args[0], args[1], keyed_noise.derive_seed(seed, args[2])
      ),
      (x, y, chosen),
    )
    loss = tf.reduce_sum(keyed_noise.clip_factor(norms, clip_norm) * losses)
  total = _dense_gradients(tape, loss, weights)
  accepted = tf.reduce_any(finite)
  return tuple(tf.where(accepted, t, tf.zeros_like(t)) for t in total), norms


def _looped_sum(
  loss_fn: _LossFn,
  weights: Weights,
  x: Any,
  y: Any,
  *,
  seed: tf.Tensor,
  clip_norm: float,
) -> tuple[Weights, tf.Tensor]:
  """Returns what `_vectorized_sum` does, one example after another."""
  size = tf.shape(tf.nest.flatten(x)[0])[0]

  def add_example(row, total, norms):
    x_row, y_row = tf.nest.map_structure(lambda t: t[row], (x, y))
    gradients, norm = _example_gradients(
      loss_fn, weights, x_row, y_row, keyed_noise.derive_seed(seed, row)
    )
    clipped, _ = keyed_noise.clip(gradients, clip_norm)
    total = tuple(map(tf.add, total, clipped))
    return row + 1, total, norms.write(row, norm)

  _, total, norms = tf.while_loop(
    lambda row, *_: row < size,
    add_example,
    (
      tf.constant(0),
      tuple(map(tf.zeros_like, weights)),
      tf.TensorArray(weights[0].dtype, size),
    ),
    parallel_iterations=1,
  )
  return total, norms.stack()


def _vectorizes(model: tff.learning.models.FunctionalModel) -> bool:
  """Returns whether `tf.vectorized_map` can take the model's gradient.

  It cannot vectorize a Keras recurrent layer, whose loop keeps its history in
  variant tensors, nor random numbers whose seeds differ between examples. So
  the graph of one example's gradient is searched for both; a search by layer
  type would miss a user's own.
  """
  with tf.Graph().as_default() as graph:
    trainable, non_trainable = tf.nest.map_structure(
      tf.constant, tuple(model.initial_weights)
    )
    x, y = (
      tf.nest.map_structure(
        lambda s: tf.compat.v1.placeholder(s.dtype, s.shape[1:]), spec
      )
      for spec in model.input_spec.values()
    )

    def loss_fn(trainable, x, y, seed):
      return _example_loss(model, (trainable, non_trainable), x, y, seed)

    _example_gradients(loss_fn, tuple(trainable), x, y, tf.zeros([2], tf.int64))
  definition = graph.as_graph_def()
  functions = [f.node_def for f in definition.library.function]
  ops = {node.op for nodes in (definition.node, *functions) for node in nodes}
  return not any('While' in op or 'Random' in op for op in ops)
