"""What a dishonest client does to its update before it leaves.

Sign flipping and scaled updates: Blanchard, El Mhamdi, Guerraoui, Stainer,
"Machine learning with adversaries", NeurIPS 2017 (arXiv:1703.02757), section
1; Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How to backdoor federated
learning", AISTATS 2020 (arXiv:1807.00459), section 3 (model replacement scales
the update of a backdoored model).
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop

EXTRA_SPEC = {training_loop.INDEX: training_loop.INDEX_SPEC}


def release(
  honest: protection.Release, *, dishonest: np.ndarray, factor: float
) -> protection.Release:
  """Returns the release after which dishonest clients scale their updates.

  It comes last, so that what a mechanism does on a client (clip, noise) binds
  the honest ones only; what it does at the server binds all.

  Args:
    honest: What happens before.
    dishonest: Which clients of the population are; bool[clients].
    factor: On their updates; negative reverses them.
  """

  def call(update, element):
    update, counts, kept = honest.call(update, element)
    is_dishonest = tf.constant(dishonest)[element[training_loop.INDEX]]
    scale = tf.where(is_dishonest, factor, 1.0)
    scaled = tf.nest.map_structure(
      lambda t: t * tf.cast(scale, t.dtype), update
    )
    return scaled, counts, kept

  return dataclasses.replace(honest, call=call)
