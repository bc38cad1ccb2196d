"""Holds a run that is continued to the data that it was started with.

Noise is a function of noise key and round. A round replayed on other data would
release another sum under the same noise: the difference of the two would not be
noised at all.
"""

from collections.abc import Mapping
import hashlib
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.experiment import noise
from tff_pipeline.privacy import noise_key as noise_keys

NAME = 'data_tag'
"""Its entry in `config.json`."""


def tag(
  experiment: config.Experiment,
  train: client_data.Clients,
  key: noise_keys.NoiseKey,
) -> str | None:
  """Returns a name of the training data that says nothing without the key.

  Of data that is streamed from a file, of the sizes of clients alone.

  Args:
    experiment: The config.
    train: What clients train on.
    key: The noise key.

  Returns:
    The key's fingerprint and a keyed digest; `None` for a run whose noise
    follows no key: there a replayed round is no danger, and a plain checksum of
    private data would be one.
  """
  if not noise.follows_key(experiment):
    return None
  digest = hashlib.blake2b(
    key=noise_keys.to_text(key).encode(), digest_size=16, person=b'data_tag'
  )
  parts = [train.client_sizes]
  if isinstance(train, client_data.ClientData):
    parts += [train.examples.x, train.examples.y]
  for part in parts:
    digest.update(f'{part.dtype.str} {part.shape} '.encode())
    digest.update(memoryview(np.ascontiguousarray(part)).cast('B'))
  return f'{noise_keys.fingerprint(key)} {digest.hexdigest()}'


def check(record: Mapping[str, Any] | None, found: str | None) -> None:
  """Raises `UsageError` if a run had other data under the same noise key.

  Under another key a replayed round is one more release, and is priced so.

  Args:
    record: Content of `config.json`, if the run is continued. One of before
      there were tags has none.
    found: The tag of the data that was read now.
  """
  started = (record or {}).get(NAME)
  if started is None or found is None or started == found:
    return
  if started.split()[0] == found.split()[0]:
    raise validate.error(
      'output_dir',
      expected='a run that was started with the data which was read now: its '
      'noise, on other data once more, would not protect the difference',
      found='other training data',
      remedy='Restore the data, or start a new run elsewhere',
    )
