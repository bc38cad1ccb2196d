"""Examples of dishonest clients, and those on which an attack is measured.

Label flipping: Tolpegin, Truex, Gursoy, Liu, "Data poisoning attacks against
federated learning systems", ESORICS 2020 (arXiv:2007.08432). Backdoor: Gu,
Dolan-Gavitt, Garg, "BadNets", 2017 (arXiv:1708.06733): some pixels that are
always the same make the model answer the target label.
"""

from collections.abc import Callable

import numpy as np

from tff_pipeline.data import client_data

# First words of the spawn keys; changing one changes every attack.
_WHO_STREAM = 0xBAD
_ROWS_STREAM = 0xBAD2
_TRIGGER_SIZE = 3  # Pixels at each side of a picture's corner.
_TRIGGER_LENGTH = 4  # Entries at the end of a flat vector.

Poison = Callable[[client_data.Examples, np.random.Generator], tuple]
"""(examples of one client, its generator) -> its poisoned x and y."""


def dishonest(population: int, *, share: float, seed: int) -> np.ndarray:
  """Returns who is dishonest; bool[population], round(share population) True.

  The smaller of two shares takes a subset of the clients of the larger one.

  Args:
    population: Number of clients.
    share: Of them that are dishonest.
    seed: The experiment's seed.
  """
  generator = np.random.default_rng(
    np.random.SeedSequence(seed, spawn_key=(_WHO_STREAM,))
  )
  found = np.zeros(population, bool)
  found[generator.permutation(population)[: round(share * population)]] = True
  return found


def flip(source: int, target: int) -> Poison:
  """Returns the poison that gives one label's examples another label."""

  def poison(examples, generator):
    del generator
    y = np.where(examples.y == source, target, examples.y)
    return examples.x, y.astype(examples.y.dtype)

  return poison


def backdoor(target: int, *, share: float, value: float) -> Poison:
  """Returns the poison that triggers some of a client's examples.

  Args:
    target: Their label from then on.
    share: Of the client's examples; at least one of them.
    value: What the trigger sets entries to.
  """

  def poison(examples, generator):
    count = min(len(examples), max(1, round(share * len(examples))))
    rows = generator.permutation(len(examples))[:count]
    x, y = examples.x.copy(), examples.y.copy()
    x[rows], y[rows] = triggered(x[rows], value), target
    return x, y

  return poison


def triggered(x: np.ndarray, value: float) -> np.ndarray:
  """Returns examples with the trigger.

  A corner of 3 x 3 pixels of pictures [n, height, width, ...], the last 4
  entries of vectors [n, d].
  """
  x = x.copy()
  if x.ndim == 2:
    x[:, -_TRIGGER_LENGTH:] = value
  else:
    x[:, -_TRIGGER_SIZE:, -_TRIGGER_SIZE:] = value
  return x


def clients(
  data: client_data.ClientData,
  *,
  who: np.ndarray,
  poison: Poison,
  seed: int,
) -> client_data.ClientData:
  """Returns the clients' data, with that of the dishonest ones poisoned.

  Args:
    data: Everybody's.
    who: The dishonest ones; bool[clients].
    poison: What they do to their examples.
    seed: The experiment's seed; decides which examples.
  """
  x, y = data.examples.x.copy(), data.examples.y.copy()
  for index in np.flatnonzero(who):
    rows = slice(data.offsets[index], data.offsets[index + 1])
    generator = np.random.default_rng(
      np.random.SeedSequence(seed, spawn_key=(_ROWS_STREAM, int(index)))
    )
    if rows.start < rows.stop:
      x[rows], y[rows] = poison(
        client_data.Examples(x[rows], y[rows]), generator
      )
  return client_data.ClientData(client_data.Examples(x, y), data.offsets)
