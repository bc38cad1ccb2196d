"""What clients have: the contract, and data in memory that keeps it.

In memory, examples are flat arrays with per-client offsets; `streamed` reads
those of a cohort from a file instead.
"""

import collections
import dataclasses
import functools
from typing import Any, Protocol

import numpy as np

from tff_pipeline.data import aligned


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """Labelled examples, pooled.

  Attributes:
    x: Features; shape [n, ...].
    y: Labels; shape [n, ...].
  """

  x: np.ndarray
  y: np.ndarray

  def __post_init__(self) -> None:
    if len(self.x) != len(self.y):
      raise ValueError(
        f'Expected as many labels as examples, found {len(self.y)} labels '
        f'and {len(self.x)} examples.'
      )

  def __len__(self) -> int:
    return len(self.x)


class Clients(Protocol):
  """The examples of many clients, wherever they are kept.

  Attributes:
    num_clients: The population.
    client_sizes: Examples of each client; int64[clients].
    prototype: No examples, of the shapes and dtypes of all others.
  """

  num_clients: int
  client_sizes: np.ndarray
  prototype: Examples

  def client(self, index: int) -> collections.OrderedDict[str, Any]:
    """Returns one client's rows under the keys x and y."""

  def gather(self, clients: np.ndarray) -> tuple[Examples, np.ndarray]:
    """Returns examples among which are those of a cohort.

    Args:
      clients: Indices of different clients; int64[k].

    Returns:
      The examples, and the first row of each client in them, int64[k]; the
      rows of client i are the `client_sizes[i]` ones from there.
    """

  def prefetch(self, clients: np.ndarray) -> None:
    """Says which cohort comes next; changes nothing but the time it takes."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClientData:
  """Examples laid out client after client.

  Attributes:
    examples: All clients' examples, end to end.
    offsets: int64[clients + 1]; client i owns rows offsets[i]:offsets[i + 1].
  """

  examples: Examples
  offsets: np.ndarray

  def __post_init__(self) -> None:
    offsets = self.offsets
    if offsets[0] != 0 or offsets[-1] != len(self.examples):
      raise ValueError(
        f'Expected offsets from 0 to {len(self.examples)}, found '
        f'{offsets[0]} to {offsets[-1]}.'
      )
    if np.any(np.diff(offsets) < 0):
      raise ValueError('Expected offsets that never fall.')

  @property
  def num_clients(self) -> int:
    """The population."""
    return len(self.offsets) - 1

  @functools.cached_property
  def client_sizes(self) -> np.ndarray:
    """Examples of each client; int64[clients]."""
    return np.diff(self.offsets)

  def client(self, index: int) -> collections.OrderedDict[str, Any]:
    """Returns views of one client's rows under the keys x and y."""
    rows = slice(self.offsets[index], self.offsets[index + 1])
    return collections.OrderedDict(
      x=self.examples.x[rows], y=self.examples.y[rows]
    )

  @property
  def prototype(self) -> Examples:
    """No examples, of the shapes and dtypes of all others."""
    return Examples(self.examples.x[:0], self.examples.y[:0])

  def gather(self, clients: np.ndarray) -> tuple[Examples, np.ndarray]:
    """Returns all examples, and the first row of each client."""
    return self.examples, self.offsets[clients]

  def prefetch(self, clients: np.ndarray) -> None:
    """Does nothing: everything is in memory."""


def from_assignment(
  examples: Examples, clients: list[np.ndarray]
) -> ClientData:
  """Lays out `examples` by client.

  Args:
    examples: The pooled examples.
    clients: Row numbers of each client; int64 arrays.

  Returns:
    The rearranged copy.
  """
  order = np.concatenate(clients)
  sizes = [len(rows) for rows in clients]
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  arranged = Examples(
    aligned.take(examples.x, order), aligned.take(examples.y, order)
  )
  return ClientData(arranged, offsets)


def only(data: ClientData, index: int) -> ClientData:
  """Returns one client and nobody else."""
  rows = data.client(index)
  return ClientData(Examples(**rows), np.array([0, len(rows['x'])], np.int64))


def select(data: ClientData, clients: np.ndarray) -> ClientData:
  """Returns some clients, in this order; a copy."""
  rows = [np.arange(*data.offsets[client : client + 2]) for client in clients]
  return from_assignment(data.examples, rows)


def first(
  data: ClientData, *, clients: int | None = None, examples: int | None = None
) -> ClientData:
  """Returns the first clients, and the first examples of each.

  Args:
    data: The clients.
    clients: How many to keep; unset means all.
    examples: Rows to keep of each client, at most; unset means all.
  """
  offsets = data.offsets[: None if clients is None else clients + 1]
  kept = ClientData(
    Examples(data.examples.x[: offsets[-1]], data.examples.y[: offsets[-1]]),
    offsets,
  )
  if examples is None:
    return kept
  rows = [
    np.arange(start, min(stop, start + examples))
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
  ]
  return from_assignment(kept.examples, rows)
