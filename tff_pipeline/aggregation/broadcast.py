"""How the model gets to the clients: as it is, or in fewer bits."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline.client_work import compression

_STREAM = 0xB0AD

Distributor = Callable[[tff.Type], tff.learning.templates.DistributionProcess]


def build(leaves: config.Compression, *, seed: int) -> Distributor:
  """Returns what makes the broadcast of the weights' type.

  Args:
    leaves: Bits of an entry; unset sends the weights as they are.
    seed: The experiment's seed; with the round, it decides the rounding. All
      clients of a round get the same model.
  """
  if leaves.broadcast_bits is None:
    return tff.learning.templates.build_broadcast_process

  def distributor(
    weights_type: tff.Type,
  ) -> tff.learning.templates.DistributionProcess:
    @tff.tensorflow.computation(np.int64, weights_type)
    def encode(rounds, weights):
      key = tf.constant([_STREAM, seed % 2**63], tf.int64)
      sent = compression.quantized(
        weights,
        keyed_noise.derive_seed(key, rounds),
        bits=leaves.broadcast_bits,
        rounding=config.Rounding.STOCHASTIC,
        rotation=config.Rotation.NONE,
      )
      return rounds + 1, sent

    @tff.federated_computation
    def initialize():
      return tff.federated_value(np.int64(0), tff.SERVER)

    @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(weights_type, tff.SERVER),
    )
    def next_fn(rounds, weights):
      rounds, sent = tff.federated_map(encode, (rounds, weights))
      return tff.templates.MeasuredProcessOutput(
        rounds,
        tff.federated_broadcast(sent),
        tff.federated_value((), tff.SERVER),
      )

    return tff.learning.templates.DistributionProcess(initialize, next_fn)

  return distributor
