"""Partitions that skew the labels: two of Dirichlet, shards, label count."""

import numpy as np

from tff_pipeline import validate
from tff_pipeline.data.partition import sizes

_NO_ROWS = np.empty(0, np.int64)


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
    clients: Number of parts.
    concentration: Dirichlet concentration; small is skewed.
    rng: Source of all randomness.

  Returns:
    Row numbers of each client; each row occurs once.
  """
  pools = _pools(labels, rng)
  left = np.array([len(pool) for pool in pools])
  prior = left / left.sum()
  parts = []
  for size in sizes.even(len(labels), clients):
    weights = _dirichlet_draw(rng, concentration * prior)
    taken = _draw_without_replacement(left, weights, size, rng)
    left -= taken
    part = [
      pools[c][left[c] : left[c] + taken[c]] for c in np.flatnonzero(taken)
    ]
    # Not in the order of the classes: a client may not shuffle.
    parts.append(rng.permutation(np.concatenate([_NO_ROWS, *part])))
  # The last clients get what is left over; the shuffle removes that order.
  return [parts[k] for k in rng.permutation(clients)]


# Until every client has enough examples; NIID-Bench draws without end.
_ATTEMPTS = 100


def label_dirichlet(
  labels: np.ndarray,
  *,
  clients: int,
  concentration: float,
  least: int,
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Returns parts among which each label is dealt by a Dirichlet draw.

  Yurochkin et al., "Bayesian nonparametric federated learning of neural
  networks" (ICML 2019, arXiv:1905.12022), as in NIID-Bench (Li, Diao, Chen, He,
  ICDE 2022, arXiv:2102.02079): label k draws p_k ~ Dirichlet(concentration)
  over the clients and is cut in these proportions, where clients that already
  have their even share get none. All labels are dealt anew while a client has
  too few examples. Sizes vary, unlike those of `dirichlet`, and the
  concentration is that of one client, not of all labels together.

  Args:
    labels: Whole-number labels; shape [n].
    clients: Number of parts.
    concentration: Dirichlet concentration; small is skewed.
    least: Fewest rows of a part.
    rng: Source of all randomness.

  Returns:
    Row numbers of each client; each row occurs once.

  Raises:
    UsageError: If some client has too few examples in 100 draws.
  """
  pools = _pools(labels, rng)
  even = len(labels) / clients
  for _ in range(_ATTEMPTS):
    parts = [[_NO_ROWS] for _ in range(clients)]
    held = np.zeros(clients, np.int64)
    for pool in pools:
      shares = _dirichlet_draw(rng, np.full(clients, concentration))
      shares = np.where(held < even, shares, 0.0)
      if not shares.any():  # All of it fell on clients that have enough.
        shares = (held < even).astype(np.float64)
      ends = np.cumsum(shares / shares.sum())[:-1] * len(pool)
      cut = np.split(pool, ends.astype(np.int64))
      held += [len(rows) for rows in cut]
      for part, rows in zip(parts, cut, strict=True):
        part.append(rows)
    if held.min() >= least:
      return [rng.permutation(np.concatenate(part)) for part in parts]
  raise validate.error(
    'task.min_examples',
    expected=f'at most what the smallest client has: {held.min()} in the last '
    f'of {_ATTEMPTS} draws',
    found=least,
    remedy='Raise --task.concentration, lower --task.clients, or allow clients '
    'without any by --task.min_examples=0',
  )


def _draw_without_replacement(
  left: np.ndarray, weights: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Returns how many of `size` draws fall on each class.

  The draws follow `weights`, renormalised whenever a class runs out. Drawing
  them one by one is the same as rejecting those that fall on an empty class,
  and how many of a class are accepted does not depend on their order: so they
  are drawn together, and those that were too many drawn again.

  Args:
    left: What each class still has; int64[classes], at least `size` in all.
    weights: Probability of each class; float64[classes].
    size: Number of draws.
    rng: Source of all randomness.
  """
  taken = np.zeros_like(left)
  while (missing := size - taken.sum()) > 0:
    allowed = np.where(left > taken, weights, 0.0)
    if allowed.sum() <= 0.0:  # Nothing it likes is left: whatever there is.
      return taken + rng.multivariate_hypergeometric(left - taken, missing)
    drawn = rng.multinomial(missing, allowed / allowed.sum())
    taken = np.minimum(taken + drawn, left)
  return taken


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


def shards(
  labels: np.ndarray,
  *,
  clients: int,
  shards_per_client: int,
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Returns the "pathological" partition: few labels for each client.

  McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient
  learning of deep networks from decentralized data" (AISTATS 2017,
  arXiv:1602.05629), section 3: sort by label, cut into clients *
  shards_per_client shards, and give each client so many of them at random.
  Shards differ in size by one at most.

  Args:
    labels: Labels that sort; shape [n], n >= clients * shards_per_client.
    clients: Number of parts.
    shards_per_client: Shards of each client; 2 in the paper.
    rng: Source of all randomness.

  Returns:
    Row numbers of each client; each row occurs once.
  """
  by_label = np.concatenate(_pools(labels, rng))
  number = clients * shards_per_client
  ends = np.cumsum(sizes.even(len(labels), number))
  cut = np.split(by_label, ends[:-1])
  dealt = rng.permutation(number).reshape(clients, shards_per_client)
  return [
    rng.permutation(np.concatenate([cut[shard] for shard in own]))
    for own in dealt
  ]


def label_count(
  labels: np.ndarray,
  *,
  clients: int,
  labels_per_client: int,
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Returns parts of exactly so many labels each.

  Li, Diao, Chen, He, "Federated learning on non-IID data silos" (ICDE 2022,
  arXiv:2102.02079), "#C = k": each client gets k labels at random, and the
  examples of a label are dealt evenly to the clients that have it. Here every
  label has about as many owners as any other, never none, so that every
  example is used.

  Args:
    labels: Labels; shape [n].
    clients: Number of parts.
    labels_per_client: Labels of each client, k.
    rng: Source of all randomness.

  Returns:
    Row numbers of each client; each row occurs once.

  Raises:
    UsageError: If there are not so many labels, or not enough examples or
      clients to give every client k labels and every label an owner.
  """
  pools = _pools(labels, rng)
  owners = _owners(
    np.array([len(pool) for pool in pools]),
    clients=clients,
    labels_per_client=labels_per_client,
    rng=rng,
  )
  parts = [[] for _ in range(clients)]
  for pool, owned in zip(pools, owners.T, strict=True):
    own = rng.permutation(np.flatnonzero(owned))
    ends = np.cumsum(sizes.even(len(pool), len(own)))
    for client, rows in zip(own, np.split(pool, ends[:-1]), strict=True):
      parts[client].append(rows)
  return [rng.permutation(np.concatenate(part)) for part in parts]


def _owners(
  counts: np.ndarray,
  *,
  clients: int,
  labels_per_client: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Returns who owns which label; bool[clients, labels]."""
  most = np.minimum(counts, clients)  # An owner has at least one example.
  slots = clients * labels_per_client
  if (
    labels_per_client > len(counts) or slots < len(counts) or most.sum() < slots
  ):
    raise validate.error(
      'task.labels_per_client',
      expected=f'at least {-(-len(counts) // clients)} and at most '
      f'{min(len(counts), most.sum() // clients)}, so that {clients} clients '
      f'can share the examples of {len(counts)} labels',
      found=labels_per_client,
    )
  free = _number_of_owners(most, slots, rng)
  owned = np.zeros((clients, len(counts)), bool)
  for client in range(clients):
    # A label that needs all the clients that are left must be taken now.
    forced = free == clients - client
    weights = np.where(forced, 0.0, free)
    chosen = rng.choice(
      len(counts),
      labels_per_client - forced.sum(),
      replace=False,
      p=weights / weights.sum() if weights.sum() else None,
    )
    owned[client] = forced
    owned[client, chosen] = True
    free -= owned[client]
  return owned


def _number_of_owners(
  most: np.ndarray, slots: int, rng: np.random.Generator
) -> np.ndarray:
  """Returns numbers as even as `most` lets them be, adding up to `slots`."""
  level = np.searchsorted(
    [np.minimum(most, cap).sum() for cap in range(most.max() + 1)], slots
  )
  owners = np.minimum(most, level)
  # The labels that could go one lower take turns at random.
  over = owners.sum() - slots
  at_level = np.flatnonzero(owners == level)
  owners[rng.choice(at_level, over, replace=False)] -= 1
  return owners


def _pools(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
  """Returns the shuffled row numbers of each label, in the labels' order."""
  order = rng.permutation(len(labels))
  order = order[np.argsort(labels[order], kind='stable')]
  _, firsts = np.unique(labels[order], return_index=True)
  return np.split(order, firsts[1:])
