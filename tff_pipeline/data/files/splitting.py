"""Which rows are held out. The same ones in every experiment."""

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate

_DEFAULT_SHARE = 0.2
# As in other data sets: the held-out rows do not depend on the seed.
_SPLIT_SEED = 0


def held_out(
  clients: np.ndarray | None, *, rows: int, task: config.Task
) -> np.ndarray:
  """Returns which rows are held out.

  Args:
    clients: Whose row it is; int64[rows], numbers from 0 without gaps. `None`
      if the data has no clients.
    rows: Number of rows.
    task: Gives `split` and `test_share`.

  Returns:
    bool[rows]. Some rows, never all, and every client has a row that is not
    held out, or, under by_client, none or all of its rows are.

  Raises:
    UsageError: If there is nothing that could be held out.
  """
  rng = np.random.default_rng(_SPLIT_SEED)
  share = _DEFAULT_SHARE if task.test_share is None else task.test_share
  if task.split is config.Split.BY_CLIENT and clients is None:
    raise validate.error(
      'task.split',
      expected=f'{config.Split.WITHIN_CLIENT}, since the data has no clients',
      found=task.split,
    )
  if task.split is config.Split.BY_CLIENT:
    mask = _by_client(clients, share, rng)
  else:
    owners = np.zeros(rows, np.int64) if clients is None else clients
    mask = _within_client(owners, share, rng)
  if not mask.any():
    raise validate.error(
      'task.test_share',
      expected='a share that holds out at least one row, and leaves every '
      'client one',
      found=share,
      remedy='Raise it, or set --task.split=by_client',
    )
  return mask


def _by_client(
  clients: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
  number = int(clients.max()) + 1
  if number < 2:
    raise validate.error(
      'task.split',
      expected=f'{config.Split.WITHIN_CLIENT}, since there is one client only',
      found=config.Split.BY_CLIENT,
    )
  count = min(max(round(share * number), 1), number - 1)
  chosen = np.zeros(number, bool)
  chosen[rng.permutation(number)[:count]] = True
  return chosen[clients]


def _within_client(
  clients: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
  sizes = np.bincount(clients)
  # Rounded at random, so that small clients give their share as well.
  counts = np.floor(share * sizes + rng.random(len(sizes))).astype(np.int64)
  counts = np.minimum(counts, sizes - 1)
  order = np.lexsort((rng.random(len(clients)), clients))
  firsts = np.cumsum(sizes) - sizes
  places = np.empty(len(clients), np.int64)
  places[order] = np.arange(len(clients)) - firsts[clients[order]]
  return places < counts[clients]
