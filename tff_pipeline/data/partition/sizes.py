"""Partitions that do not look at the examples: even ones, and log-normal."""

import numpy as np


def even(total: int, parts: int) -> np.ndarray:
  """Returns sizes that differ by one at most and add up to `total`.

  >>> even(7, 3).tolist()
  [3, 2, 2]
  """
  sizes = np.full(parts, total // parts, np.int64)
  sizes[: total % parts] += 1
  return sizes


def iid(
  total: int, *, clients: int, rng: np.random.Generator
) -> list[np.ndarray]:
  """Returns a random split of `total` rows into even parts."""
  return _cut(rng.permutation(total), even(total, clients))


def quantity_skew(
  total: int,
  *,
  clients: int,
  sigma: float,
  least: int,
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Returns a random split into parts of log-normal sizes.

  Client k draws w_k ~ LogNormal(0, sigma^2), gets `least` rows and, of what is
  left after that, a share of w_k / sum(w), rounded so that all are used.

  Args:
    total: Number of rows, at least clients * least.
    clients: Number of parts.
    sigma: Standard deviation of the logarithm of a size.
    least: Fewest rows of a part.
    rng: Source of all randomness.

  Returns:
    Row numbers of each client; each row occurs once.
  """
  logs = sigma * rng.standard_normal(clients)
  weights = np.exp(logs - logs.max())  # The largest is 1: nothing overflows.
  shares = (total - clients * least) * weights / weights.sum()
  sizes = least + np.floor(shares).astype(np.int64)
  # The largest remainders are rounded up.
  missing = total - sizes.sum()
  order = np.argsort(np.floor(shares) - shares, kind='stable')
  sizes[order[:missing]] += 1
  return _cut(rng.permutation(total), sizes)


def _cut(order: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
  return np.split(order, np.cumsum(sizes)[:-1])
