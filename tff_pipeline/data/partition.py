"""Partitioners: pooled examples -> clients. Seeded; every example used once."""

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data

# Separates this use of the experiment's seed from cohorts and weights.
_STREAM = 0x9A27


def deal(
  examples: client_data.Examples, *, task: config.Task, seed: int
) -> client_data.ClientData:
  """Deals pooled examples to `task.clients` clients, none of them empty.

  Args:
    examples: The pooled training examples; labels are whole numbers.
    task: Gives `partition`, `clients` and `concentration`.
    seed: The experiment's seed.

  Returns:
    Client data whose clients differ in size by one example at most.

  Raises:
    UsageError: If there are more clients than examples, or if the partition
      asks for natural clients that pooled data does not have.
  """
  if task.partition is config.Partition.NATURAL:
    raise validate.error(
      'task.partition',
      expected='iid or dirichlet, since this data set has no clients of '
      'its own',
      found=task.partition,
    )
  if task.clients > len(examples):
    raise validate.error(
      'task.clients',
      expected=f'at most the {len(examples)} training examples',
      found=task.clients,
    )
  rng = np.random.default_rng([seed, _STREAM])
  if task.partition is config.Partition.IID:
    rows = iid(len(examples), clients=task.clients, rng=rng)
  else:
    rows = dirichlet(
      examples.y,
      clients=task.clients,
      concentration=task.concentration,
      rng=rng,
    )
  return client_data.from_assignment(examples, rows)


def _even_sizes(total: int, clients: int) -> np.ndarray:
  """Returns sizes that differ by one at most and add up to `total`."""
  sizes = np.full(clients, total // clients, np.int64)
  sizes[: total % clients] += 1
  return sizes


def iid(
  total: int, *, clients: int, rng: np.random.Generator
) -> list[np.ndarray]:
  """Returns a random split of `total` rows into even parts."""
  order = rng.permutation(total)
  return np.split(order, np.cumsum(_even_sizes(total, clients))[:-1])


def dirichlet(
  labels: np.ndarray,
  *,
  clients: int,
  concentration: float,
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Returns even parts whose label distributions are Dirichlet draws.

  Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution
  for federated visual classification" (arXiv:1909.06335), section 3: client k
  draws p_k ~ Dirichlet(concentration * prior) and takes its examples' labels
  from p_k without replacement; classes that run out are left out and p_k is
  renormalised. The prior is the label distribution of all examples.

  Args:
    labels: Whole-number labels; shape [n].
    clients: Number of parts, at most n.
    concentration: Dirichlet concentration; small is skewed.
    rng: Source of all randomness.

  Returns:
    Row numbers of each client; each row occurs once.
  """
  classes, counts = np.unique(labels, return_counts=True)
  pools = [rng.permutation(np.flatnonzero(labels == c)) for c in classes]
  left = counts.copy()
  prior = counts / counts.sum()
  parts = []
  for size in _even_sizes(len(labels), clients):
    weights = _dirichlet_draw(rng, concentration * prior)
    part = np.empty(size, np.int64)
    for i in range(size):
      allowed = np.where(left > 0, weights, 0.0)
      if allowed.sum() <= 0.0:
        allowed = left.astype(np.float64)
      chosen = rng.choice(len(classes), p=allowed / allowed.sum())
      left[chosen] -= 1
      part[i] = pools[chosen][left[chosen]]
    parts.append(part)
  # The last clients get what is left over; the shuffle removes that order.
  return [parts[k] for k in rng.permutation(clients)]


# Below, a draw is one-hot but for a chance of the same order, and NumPy's time
# for a draw grows as the inverse: 0.3 s at 1e-8, hours at 1e-12.
_ONE_HOT_CONCENTRATION = 1e-4


def _dirichlet_draw(rng: np.random.Generator, alpha: np.ndarray) -> np.ndarray:
  """Returns a Dirichlet draw; one-hot for tiny alphas."""
  if alpha.sum() > _ONE_HOT_CONCENTRATION:
    return rng.dirichlet(alpha)
  one_hot = np.zeros_like(alpha)
  one_hot[rng.choice(len(alpha), p=alpha / alpha.sum())] = 1.0
  return one_hot
