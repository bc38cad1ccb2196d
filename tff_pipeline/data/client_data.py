"""Federated data in memory: flat arrays with per-client offsets."""

import collections
import dataclasses
from typing import Any

import numpy as np


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

  @property
  def client_sizes(self) -> np.ndarray:
    """Examples of each client; int64[clients]."""
    return np.diff(self.offsets)

  def client(self, index: int) -> collections.OrderedDict[str, Any]:
    """Returns views of one client's rows under the keys x and y."""
    rows = slice(self.offsets[index], self.offsets[index + 1])
    return collections.OrderedDict(
      x=self.examples.x[rows], y=self.examples.y[rows]
    )


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
  return ClientData(Examples(examples.x[order], examples.y[order]), offsets)


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
