"""Bytes that one client receives and sends in one round.

Counted from shapes and code lengths: what an encoding would put on the wire
(the simulation itself moves decoded floats). In: the weights and what else is
broadcast. Out: the update as encoded, its weight, and what else an algorithm
releases. Not counted: train metrics (some tens of bytes, for the record only),
and the framing of a transport.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import optimizers
from tff_pipeline.client_work import compression as compressions
from tff_pipeline.models import split as splits

_WEIGHT_BITS = compressions.FLOAT_BITS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
  """Bytes per client and round.

  Attributes:
    bytes_up: From a client to the server.
    bytes_down: From the server to a client.
  """

  bytes_up: int
  bytes_down: int


def count(
  model: tff.learning.models.FunctionalModel,
  *,
  algorithm: config.Algorithm,
  client: config.Client,
  compression: config.Compression,
) -> Traffic:
  """Returns what a client of this algorithm sends and receives in a round."""
  trainable, non_trainable = model.initial_weights
  sizes = [int(w.size) for w in trainable]
  others = [int(w.size) for w in non_trainable]
  if isinstance(model, splits.SplitModel):
    others = []  # The initial local layers come with the program.
  up = compressions.bits(compression, sizes) + _WEIGHT_BITS
  if compression.broadcast_bits is None:
    down = compressions.FLOAT_BITS * sum(sizes + others)
  else:
    down = compressions.quantized_bits(
      sizes + others, compression.broadcast_bits
    )
  if algorithm.name is config.AlgorithmName.MIME_LITE:
    up += compressions.FLOAT_BITS * sum(sizes)
    down += _optimizer_bits(trainable, client)
  if algorithm.name is config.AlgorithmName.SCAFFOLD:
    # The change of a control variate up; the server's and the rate down.
    up += compressions.FLOAT_BITS * sum(sizes)
    down += compressions.FLOAT_BITS * (sum(sizes) + 1)
  return Traffic(bytes_up=math.ceil(up / 8), bytes_down=math.ceil(down / 8))


def _optimizer_bits(
  trainable: Sequence[np.ndarray], client: config.Client
) -> int:
  """Returns the bits of the optimizer state that MimeLite broadcasts."""
  specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in trainable)
  with tf.Graph().as_default():
    state = tf.nest.flatten(optimizers.build(client).initialize(specs))
    return sum(
      8 * t.dtype.size * t.shape.num_elements()
      for t in map(tf.convert_to_tensor, state)
    )
