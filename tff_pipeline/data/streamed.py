"""Clients whose examples stay in a file: read cohort by cohort, one ahead."""

import collections
from collections.abc import Callable
import concurrent.futures
from typing import Any

import numpy as np

from tff_pipeline.data import client_data

# This round's cohort, and the next one's.
_MOST_ANNOUNCED = 2


class StreamedClients:
  """Holds the examples of two cohorts at most: this round's and the next one's.

  `prefetch` starts a thread that reads while TensorFlow trains; `gather` then
  waits for it. A cohort that was not announced is read at once.
  """

  def __init__(
    self,
    read: Callable[[np.ndarray], client_data.Examples],
    *,
    client_sizes: np.ndarray,
    prototype: client_data.Examples,
  ):
    """Initializes the clients.

    Args:
      read: Sorted client indices -> their examples end to end, in that order.
        Called from several threads, one at a time each.
      client_sizes: Examples of each client; int64[clients].
      prototype: No examples, of the shapes and dtypes of all others.
    """
    self._read = read
    self.client_sizes = client_sizes
    self.prototype = prototype
    self._ahead = concurrent.futures.ThreadPoolExecutor(
      1, thread_name_prefix='prefetch'
    )
    self._announced: dict[bytes, concurrent.futures.Future] = {}

  @property
  def num_clients(self) -> int:
    """The population."""
    return len(self.client_sizes)

  def client(self, index: int) -> collections.OrderedDict[str, Any]:
    """Returns one client's rows under the keys x and y; reads them now."""
    rows = self._read(np.array([index]))
    return collections.OrderedDict(x=rows.x, y=rows.y)

  def in_memory(self) -> client_data.ClientData:
    """Returns the same clients, all of them read now."""
    everybody = np.arange(self.num_clients)
    offsets = np.concatenate([[0], np.cumsum(self.client_sizes)])
    return client_data.ClientData(
      self._read(everybody), offsets.astype(np.int64)
    )

  def prefetch(self, clients: np.ndarray) -> None:
    """Starts reading the next cohort."""
    clients = np.sort(clients)
    while len(self._announced) >= _MOST_ANNOUNCED:
      self._announced.pop(next(iter(self._announced))).cancel()
    self._announced[clients.tobytes()] = self._ahead.submit(self._read, clients)

  def gather(
    self, clients: np.ndarray
  ) -> tuple[client_data.Examples, np.ndarray]:
    """Returns a cohort's examples, and the first row of each client."""
    ordered = np.sort(clients)
    announced = self._announced.pop(ordered.tobytes(), None)
    examples = self._read(ordered) if announced is None else announced.result()
    sizes = self.client_sizes[ordered]
    starts = np.cumsum(sizes) - sizes
    return examples, starts[np.searchsorted(ordered, clients)]
