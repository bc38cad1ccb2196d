"""What a client's data looks like to a process.

A process of this package takes dense data: a sequence of one element with all
tensors of the client and its shuffle key. The key is made here, from seed,
round and client, none of which the client's work can see.
"""

import collections
from typing import Any

import numpy as np

from tff_pipeline import client_work
from tff_pipeline import sampling
from tff_pipeline.data import client_data


class Dense:
  """Dense elements of a cohort."""

  def __init__(self, data: client_data.ClientData, *, seed: int):
    self._data = data
    self._seed = seed

  def elements(
    self, *, round_num: int, clients: np.ndarray
  ) -> list[collections.OrderedDict[str, Any]]:
    """Returns x, y and key of each client; views, not copies."""
    keys = sampling.client_keys(self._seed, round_num, clients)
    elements = []
    for client, key in zip(clients, keys, strict=True):
      element = self._data.client(client)
      element[client_work.KEY] = key
      elements.append(element)
    return elements
