"""Feature skew: every client sees the world through its own sensor.

Only training examples are changed: held-out ones stay as they are, so a test
accuracy is that of a device without a fault.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data

_WHITE = 255


def skew(
  data: client_data.ClientData,
  *,
  transform: config.Transform,
  strength: float,
  rng: np.random.Generator,
) -> client_data.ClientData:
  """Returns the same clients with their features transformed.

  noise       client k of K adds N(0, (strength * k / (K - 1))^2) to every
              feature, after Li et al., "Federated learning on non-IID data
              silos" (ICDE 2022, arXiv:2102.02079), "noise-based feature
              imbalance"; which client gets which level is random
  rotation    turns all its images by one angle from U(-strength, strength), in
              degrees; pixels from outside are 0
  brightness  multiplies all its features by one factor from
              U(1 - strength, 1 + strength)

  Bytes count as numbers in [0, 1] here, and become bytes again: rounded, and
  cut off at black and white. Floats are not cut off.

  Args:
    data: Clients; x is float32, or uint8 for images.
    transform: What differs from client to client.
    strength: How much, in the units above; brightness at most 1.
    rng: Source of all randomness.

  Raises:
    UsageError: If the examples cannot be transformed so.
  """
  x, rows = data.examples.x, data.offsets
  if x.dtype not in (np.float32, np.uint8):
    raise validate.error(
      'task.partition',
      expected=f'another one than {config.Partition.FEATURE_SKEW}, since the '
      f'features of this data set are {x.dtype}',
      found=config.Partition.FEATURE_SKEW,
    )
  if transform is config.Transform.ROTATION and x.ndim < 3:
    raise validate.error(
      'task.transform',
      expected='noise or brightness, since examples of shape '
      f'{list(x.shape[1:])} are no images that could be turned',
      found=transform,
    )
  if transform is config.Transform.BRIGHTNESS:
    validate.check_number('task.transform_strength', strength, at_most=1.0)
  changed = np.empty_like(x)
  levels, change = _TRANSFORMS[transform]
  for k, level in enumerate(levels(data.num_clients, strength, rng)):
    own = slice(rows[k], rows[k + 1])
    seen = change(_as_floats(x[own]), level, rng)
    changed[own] = _as_bytes(seen) if x.dtype == np.uint8 else seen
  return client_data.ClientData(
    client_data.Examples(changed, data.examples.y), rows
  )


def _as_floats(x: np.ndarray) -> np.ndarray:
  return x / np.float32(_WHITE) if x.dtype == np.uint8 else x


def _as_bytes(x: np.ndarray) -> np.ndarray:
  return np.clip(np.rint(_WHITE * x), 0, _WHITE).astype(np.uint8)


def _noise_levels(
  clients: int, strength: float, rng: np.random.Generator
) -> np.ndarray:
  return rng.permutation(np.linspace(0.0, strength, clients))


def _add_noise(
  x: np.ndarray, stddev: float, rng: np.random.Generator
) -> np.ndarray:
  return x + stddev * rng.standard_normal(x.shape, np.float32)


def _uniform(
  clients: int, strength: float, rng: np.random.Generator
) -> np.ndarray:
  return rng.uniform(-strength, strength, clients)


def _turn(
  x: np.ndarray, degrees: float, rng: np.random.Generator
) -> np.ndarray:
  del rng
  if not len(x):
    return x
  return ndimage.rotate(x, degrees, axes=(2, 1), reshape=False, order=1)


def _brighten(
  x: np.ndarray, change: float, rng: np.random.Generator
) -> np.ndarray:
  del rng
  return np.float32(1.0 + change) * x


# What a client draws, and what that does to its examples.
_TRANSFORMS: dict[config.Transform, tuple[Callable, Callable]] = {
  config.Transform.NOISE: (_noise_levels, _add_noise),
  config.Transform.ROTATION: (_uniform, _turn),
  config.Transform.BRIGHTNESS: (_uniform, _brighten),
}
