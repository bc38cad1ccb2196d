"""Lossy encodings of an update, as what the decoder at the server gets.

  quantization  Konecny et al. 2016 (arXiv:1610.05492); per tensor, with range
                [low, high] and s = 2^bits - 1 steps, an entry becomes the level
                low + (high - low) l / s, l from v = s (x - low) / (high - low):
                nearest, or floor(v + u) with u uniform in [0, 1) (unbiased).
                `hadamard`: Suresh et al. 2017 (arXiv:1611.00429), before it
                x -> H D x / sqrt(n) with random signs D, undone afterwards.
  top_k         Aji and Heafield 2017 (arXiv:1704.05021): the k largest entries
                by size over the whole update; biased.
  random_k      Konecny et al. 2016: k random entries, times d/k (unbiased).

With error feedback (Seide et al. 2014; Karimireddy, Rebjock, Stich, Jaggi 2019,
arXiv:1901.09847, Algorithm 1) a client keeps what its encoded update lost, the
residual e, and adds it to the update u of its next participation:

  sends C(u + e);  e <- u + e - C(u + e)

from e = 0. Its guarantees need a C that brings it nearer to its argument than
zero is; so random_k is then not scaled up (Stich, Cordonnier, Jaggi 2018,
arXiv:1809.07599), and quantization takes two bits or more, where an error is at
most a third of the range and e stays bounded. A rejected update leaves e as it
was.

These are functions of an update and its client's key, so of seed, round and
client, and a replayed round sends the same. That is why they are no aggregation
factories, which see no client: TFF's own encoders draw from the clock
instead. Under a mechanism the server clips and noises what is decoded here, so
nothing that it promises depends on the encoding.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import tensorflow as tf

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop

FLOAT_BITS = 32
# Both ends of a quantized tensor's range.
_RANGE_BITS = 2 * FLOAT_BITS
# A key from which the server draws the same coordinates.
_KEY_BITS = 128
# No step of training has this number: its seeds come from the same key.
_STREAM = -2

RESIDUAL = 'residual'
"""Name of e in a client's state."""

Code = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(float32 tensor, seed int64[2]) -> what is decoded, of the same shape."""


def release(
  leaves: config.Compression, before: protection.Release
) -> protection.Release:
  """Returns the release that encodes and decodes, and then does the other.

  Args:
    leaves: Which encoding; `none` gives `before` back.
    before: What the mechanism does with the decoded update on the client.
  """
  if leaves.name is config.CompressionName.NONE:
    return before

  def encode(update, element):
    seed = keyed_noise.derive_seed(element[training_loop.KEY], _STREAM)
    return decoded(leaves, update, seed)

  def call(update, element):
    return before.call(encode(update, element), element)

  def call_with_feedback(update, element):
    residual = element[training_loop.STATE][RESIDUAL]
    whole = tf.nest.map_structure(tf.add, update, residual)
    sent = encode(whole, element)
    lost = tf.nest.map_structure(tf.subtract, whole, sent)
    released, counts, kept = before.call(sent, element)
    return released, counts, {**kept, RESIDUAL: lost}

  if leaves.error_feedback is not config.ErrorFeedback.ON:
    return dataclasses.replace(before, call=call)
  return dataclasses.replace(
    before, call=call_with_feedback, keeps=(*before.keeps, RESIDUAL)
  )


def decoded(leaves: config.Compression, update: Any, seed: tf.Tensor) -> Any:
  """Returns what the server decodes of an update.

  Args:
    leaves: Which encoding.
    update: A structure of float32 tensors.
    seed: int64[2]; decides all that is random.
  """
  if leaves.name is config.CompressionName.QUANTIZATION:
    return quantized(
      update,
      seed,
      bits=leaves.bits,
      rounding=leaves.rounding,
      rotation=leaves.rotation or config.Rotation.NONE,
    )
  tensors = tf.nest.flatten(update)
  flat = tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
  count = kept(leaves.kept_share, size=flat.shape[0])
  sparse = {
    config.CompressionName.TOP_K: _top_k,
    config.CompressionName.RANDOM_K: _random_k,
  }[leaves.name](flat, seed, count)
  if _is_scaled_up(leaves):
    sparse *= flat.shape[0] / count
  parts = tf.split(sparse, [t.shape.num_elements() for t in tensors])
  return tf.nest.pack_sequence_as(
    update,
    [tf.reshape(p, t.shape) for p, t in zip(parts, tensors, strict=True)],
  )


def _is_scaled_up(leaves: config.Compression) -> bool:
  """Returns whether what is sent stands for what is not: an unbiased code."""
  return (
    leaves.name is config.CompressionName.RANDOM_K
    and leaves.error_feedback is not config.ErrorFeedback.ON
  )


def bits(leaves: config.Compression, sizes: list[int]) -> int:
  """Returns the bits of one encoded update, headers included.

  Args:
    leaves: Which encoding.
    sizes: Entries of each tensor.
  """
  total = sum(sizes)
  if leaves.name is config.CompressionName.NONE:
    return FLOAT_BITS * total
  if leaves.name is config.CompressionName.QUANTIZATION:
    rotated = leaves.rotation is config.Rotation.HADAMARD
    return quantized_bits(sizes, leaves.bits, rotated=rotated)
  count = kept(leaves.kept_share, size=total)
  if leaves.name is config.CompressionName.RANDOM_K:
    return FLOAT_BITS * count + _KEY_BITS
  return (FLOAT_BITS + math.ceil(math.log2(max(total, 2)))) * count


def quantized_bits(
  sizes: list[int], bits_each: int, *, rotated: bool = False
) -> int:
  """Returns the bits of quantized tensors; a rotation pads and needs a key."""
  if rotated:
    sizes = [_padded(size) for size in sizes]
  header = _RANGE_BITS * len(sizes) + (_KEY_BITS if rotated else 0)
  return bits_each * sum(sizes) + header


def kept(share: float, *, size: int) -> int:
  """Returns how many of `size` entries are sent: at least one."""
  return max(1, round(share * size))


def quantized(
  value: Any,
  seed: tf.Tensor,
  *,
  bits: int,
  rounding: config.Rounding,
  rotation: config.Rotation,
) -> Any:
  """Returns a structure of float32 tensors after quantization, decoded."""

  def code(tensor: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    if rotation is config.Rotation.NONE:
      return _to_levels(tensor, seed, bits=bits, rounding=rounding)
    signs_seed, levels_seed = (keyed_noise.derive_seed(seed, i) for i in (0, 1))
    rotated = _rotated(tensor, signs_seed)
    levels = _to_levels(rotated, levels_seed, bits=bits, rounding=rounding)
    return _rotated_back(levels, signs_seed, shape=tensor.shape)

  coded = [
    code(tensor, keyed_noise.derive_seed(seed, index))
    for index, tensor in enumerate(tf.nest.flatten(value))
  ]
  return tf.nest.pack_sequence_as(value, coded)


def _to_levels(
  x: tf.Tensor, seed: tf.Tensor, *, bits: int, rounding: config.Rounding
) -> tf.Tensor:
  steps = float(2**bits - 1)
  low, high = tf.reduce_min(x), tf.reduce_max(x)
  width = high - low
  position = tf.math.divide_no_nan(steps * (x - low), width)
  shift = (
    tf.random.stateless_uniform(tf.shape(x), seed)
    if rounding is config.Rounding.STOCHASTIC
    else 0.5
  )
  level = tf.clip_by_value(tf.floor(position + shift), 0.0, steps)
  return low + width * level / steps


def _padded(size: int) -> int:
  return 1 << max(size - 1, 0).bit_length()


def _signs(seed: tf.Tensor, size: int) -> tf.Tensor:
  return tf.sign(tf.random.stateless_uniform([size], seed) - 0.5 + 1e-9)


def _rotated(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  flat = tf.reshape(x, [-1])
  size = _padded(flat.shape[0])
  flat = tf.pad(flat, [[0, size - flat.shape[0]]])
  return _hadamard(flat * _signs(seed, size))


def _rotated_back(
  x: tf.Tensor, seed: tf.Tensor, *, shape: tf.TensorShape
) -> tf.Tensor:
  flat = _hadamard(x) * _signs(seed, x.shape[0])
  return tf.reshape(flat[: shape.num_elements()], shape)


def _hadamard(x: tf.Tensor) -> tf.Tensor:
  """Returns H x / sqrt(n), its own inverse; n is a power of two."""
  size = x.shape[0]
  half = 1
  while half < size:
    pairs = tf.reshape(x, [-1, 2, half])
    x = tf.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
    half *= 2
  return tf.reshape(x, [size]) / math.sqrt(size)


def _top_k(flat: tf.Tensor, seed: tf.Tensor, count: int) -> tf.Tensor:
  del seed
  rows = tf.math.top_k(tf.abs(flat), count, sorted=False).indices
  return _only(flat, rows)


def _random_k(flat: tf.Tensor, seed: tf.Tensor, count: int) -> tf.Tensor:
  order = tf.random.experimental.stateless_shuffle(
    tf.range(flat.shape[0]), seed
  )
  return _only(flat, order[:count])


def _only(flat: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
  return tf.scatter_nd(rows[:, tf.newaxis], tf.gather(flat, rows), flat.shape)
