"""Local differential privacy: a client noises its update before it leaves."""

import tensorflow as tf

from tff_pipeline import keyed_noise
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop

# Apart from the noise of the client's steps, which the same key decides.
_STREAM = 1


def release(
  *,
  clip_norm: float,
  noise_multiplier: float,
  clip: keyed_noise.Clip = keyed_noise.clip,
) -> protection.Release:
  """Returns the release that clips an update and adds noise to it.

  Formal guarantees: one release is the Gaussian mechanism with noise
  multiplier `noise_multiplier` if the client's update is replaced by zero.
  Between any two data sets of the client the update moves by up to twice the
  clip norm: half the noise multiplier. Nobody but the client need be trusted;
  the noise key stays on the client in a deployment.

  Args:
    clip_norm: Largest L2 norm of the update.
    noise_multiplier: Noise standard deviation on one update, over clip_norm.
    clip: How it is clipped.

  Returns:
    The release; it reads the client's noise key and counts clipped updates.
  """

  def noised(update, element):
    clipped, norm = clip(update, clip_norm)
    seed = keyed_noise.derive_seed(element[training_loop.NOISE_KEY], _STREAM)
    result = keyed_noise.add_gaussian_noise(
      clipped, stddev=noise_multiplier * clip_norm, seed=seed
    )
    return result, {'clipped_updates': tf.cast(norm > clip_norm, tf.int64)}, {}

  return protection.Release(call=noised, counts=('clipped_updates',))
