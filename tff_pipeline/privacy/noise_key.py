"""The secret that decides all DP noise of a run.

It is drawn from the operating system when a run starts and kept in the run
directory, never in `config.json`. Whoever knows it can subtract the noise.
"""

import hashlib
import secrets

import numpy as np

from tff_pipeline import config

NoiseKey = tuple[int, int]


def is_keyed(batches: config.Batches | None) -> bool:
  """Returns whether a replayed round releases the same values again.

  All noise of this project follows the key. That of TensorFlow Privacy's Keras
  optimizers, which train on fixed-size batches, comes from TensorFlow's own
  generator.
  """
  return batches is not config.Batches.FIXED_SIZE


def draw() -> NoiseKey:
  """Returns 128 random bits of the operating system, as two signed integers."""
  return _from_bytes(secrets.token_bytes(16))


def from_seed(noise_seed: int) -> NoiseKey:
  """Returns the key of a reproducible simulation; anybody can compute it.

  >>> from_seed(7) == from_seed(7) != from_seed(8)
  True
  """
  digest = hashlib.sha256(f'tff_pipeline noise seed {noise_seed}'.encode())
  return _from_bytes(digest.digest()[:16])


def _from_bytes(data: bytes) -> NoiseKey:
  first, second = np.frombuffer(data, dtype='<i8')
  return int(first), int(second)


def for_clients(
  key: NoiseKey, round_num: int, clients: np.ndarray
) -> np.ndarray:
  """Returns the keys of the noise that clients draw themselves in a round.

  Args:
    key: The run's noise key.
    round_num: 1-based.
    clients: Client indices; int64[m].

  Returns:
    int64[m, 2]; SHA-256 of key, round and client, cut to 128 bits.
  """
  prefix = hashlib.sha256(f'{to_text(key)}/round {round_num}/client '.encode())
  digests = []
  for client in clients:
    digest = prefix.copy()
    digest.update(str(int(client)).encode())
    digests.append(digest.digest()[:16])
  return np.frombuffer(b''.join(digests), dtype='<i8').reshape(-1, 2)


def to_text(key: NoiseKey) -> str:
  """Returns 32 hexadecimal digits, the content of the `noise_key` file."""
  return np.array(key, dtype='<i8').tobytes().hex()


def from_text(text: str) -> NoiseKey:
  """Returns the key that `to_text` wrote.

  >>> from_text(to_text((1, -2)))
  (1, -2)

  Raises:
    ValueError: If the text is not 32 hexadecimal digits.
  """
  data = bytes.fromhex(text.strip())
  if len(data) != 16:
    raise ValueError(f'Expected 32 hexadecimal digits, found {2 * len(data)}.')
  return _from_bytes(data)


def fingerprint(key: NoiseKey) -> str:
  """Returns a name for the key that does not give it away."""
  digest = hashlib.sha256(b'tff_pipeline fingerprint ' + to_text(key).encode())
  return 'sha256:' + digest.hexdigest()[:16]
