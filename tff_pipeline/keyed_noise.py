"""Clipping and keyed noise: pure functions of tensors and a key.

All noise is a function of a key and a path below it (round, step, tensor), so
that a replayed round draws the same noise, and nothing else ever does. The
generator is TensorFlow's Philox: fast and splittable, not cryptographic.
"""

from collections.abc import Callable
import math
from typing import Any

import tensorflow as tf

Clip = Callable[[Any, tf.Tensor | float], tuple[Any, tf.Tensor]]
"""(value, clip norm) -> the value with a global L2 norm of at most that; and
the smallest clip norm that would have left the value as it is."""


def derive_seed(key: tf.Tensor, *path: Any) -> tf.Tensor:
  """Returns the seed at the end of `path` below `key`; both int64[2].

  Different paths of one length give different, unrelated seeds: each step is
  a `stateless_fold_in`.

  Args:
    key: int64[2].
    *path: Whole numbers or integer scalars.
  """
  for step in path:
    key = tf.random.experimental.stateless_fold_in(key, tf.cast(step, tf.int64))
  return key


def add_gaussian_noise(
  value: Any, *, stddev: tf.Tensor | float, seed: tf.Tensor
) -> Any:
  """Adds independent N(0, stddev^2) noise to each entry of each tensor.

  Args:
    value: A structure of float tensors.
    stddev: Standard deviation, in the units of `value`.
    seed: int64[2]; tensor i of the flattened structure uses the seed derived
      from it by i, so that no two tensors share noise.

  Returns:
    The noised structure.
  """
  noised = [
    tensor
    + tf.random.stateless_normal(
      tf.shape(tensor),
      seed=derive_seed(seed, index),
      stddev=tf.cast(stddev, tensor.dtype),
      dtype=tensor.dtype,
    )
    for index, tensor in enumerate(tf.nest.flatten(value))
  ]
  return tf.nest.pack_sequence_as(value, noised)


def global_norm(value: Any) -> tf.Tensor:
  """Returns the L2 norm over all entries of a structure of float tensors.

  Of operations that `tf.vectorized_map` can take, unlike TensorFlow's own.
  """
  squares = [tf.reduce_sum(tf.square(t)) for t in tf.nest.flatten(value)]
  return tf.sqrt(tf.add_n(squares))


def zero_if_non_finite(
  value: Any, *, condition: tf.Tensor | bool = True
) -> tuple[Any, tf.Tensor, tf.Tensor]:
  """Replaces a value whose norm is not finite by zeros, as a whole.

  One infinite or undefined entry makes the norm so, and so does a norm that is
  too large for the dtype, although all entries are finite. Clipping would turn
  such a value into undefined entries everywhere, and one such client would
  undo the model.

  Args:
    value: A structure of float tensors.
    condition: What else has to hold for the value to be kept; boolean scalar.

  Returns:
    The value or zeros; the global L2 norm of what is returned; and whether the
    value was kept, a boolean scalar.
  """
  # In one pass over each tensor: squares would be written down first.
  halves = [tf.nn.l2_loss(t) for t in tf.nest.flatten(value)]
  norm = tf.sqrt(2.0 * tf.add_n(halves))
  finite = tf.math.is_finite(norm) & condition
  # Not `tf.where`: it copies the value, which took 4% of a client's training.
  zeroed = tf.cond(
    finite,
    lambda: tf.nest.map_structure(tf.identity, value),
    lambda: tf.nest.map_structure(tf.zeros_like, value),
  )
  return zeroed, tf.where(finite, norm, tf.zeros_like(norm)), finite


def clip(value: Any, clip_norm: tf.Tensor | float) -> tuple[Any, tf.Tensor]:
  """Scales a value down to a global L2 norm of at most `clip_norm`.

  Args:
    value: A structure of float tensors; not finite counts as zero.
    clip_norm: In the units of `value`.

  Returns:
    The clipped value, which is the value itself where nothing is clipped; its
    norm exceeds `clip_norm` by float rounding at most. And the norm before,
    with that of a value that is not finite as zero.
  """
  value, norm, _ = zero_if_non_finite(value)
  clip_norm = tf.cast(clip_norm, norm.dtype)
  scale = clip_factor(norm, clip_norm)
  clipped = tf.nest.map_structure(lambda t: t * tf.cast(scale, t.dtype), value)
  return clipped, norm


def clip_each_tensor(
  value: Any, clip_norm: tf.Tensor | float
) -> tuple[Any, tf.Tensor]:
  """Scales each of m tensors down to an L2 norm of clip_norm / sqrt(m).

  Per-layer clipping of McMahan, Ramage, Talwar, Zhang, "Learning differentially
  private recurrent language models", ICLR 2018 (arXiv:1710.06963), with equal
  shares; a layer is one tensor, so that a kernel and its bias are two. The
  global norm is at most clip_norm, as after `clip`, but one large tensor does
  not shrink the others.

  Args:
    value: A structure of float tensors; not finite counts as zero, as a whole.
    clip_norm: In the units of `value`.

  Returns:
    The clipped value; and sqrt(m) times the largest norm of a tensor, which
    exceeds clip_norm where a tensor was clipped.
  """
  value, _, _ = zero_if_non_finite(value)
  tensors = tf.nest.flatten(value)
  shares = math.sqrt(len(tensors))
  norms = [shares * tf.sqrt(2.0 * tf.nn.l2_loss(t)) for t in tensors]
  clip_norm = tf.cast(clip_norm, norms[0].dtype)
  clipped = [
    t * clip_factor(norm, clip_norm)
    for t, norm in zip(tensors, norms, strict=True)
  ]
  return tf.nest.pack_sequence_as(value, clipped), tf.reduce_max(norms)


def clip_factor(norm: tf.Tensor, clip_norm: tf.Tensor | float) -> tf.Tensor:
  """Returns min(1, clip_norm / norm); zero where the norm is not finite."""
  factor = tf.where(norm > clip_norm, clip_norm / norm, tf.ones_like(norm))
  return tf.where(tf.math.is_finite(norm), factor, tf.zeros_like(norm))
