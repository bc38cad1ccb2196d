"""Who takes part in a round, and under which key each client shuffles.

Everything here is a pure function of the run's seed and the round number, so
resuming has nothing to rewind, and two arms of a sweep see the same cohorts.
Cohorts and shuffles draw from streams of their own: no other use of the same
seed shares their random numbers.

The seed reveals the cohorts. Amplification by sampling assumes that they stay
secret: fine for a simulation, not for a deployment.
"""

from collections.abc import Callable

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate

# First words of the spawn keys; changing one changes every run.
_COHORT_STREAM = 0xC0_40_27
_SHUFFLE_STREAM = 0x5A_0F_F1
_STRAGGLER_STREAM = 0x57_4A_66

Sampler = Callable[[int], np.ndarray]
"""Round number (1-based) -> sorted int64[m] of client indices, 0 <= id < N."""


def build(cohort: config.Cohort, *, population: int, seed: int) -> Sampler:
  """Returns the sampler of a run.

  - `poisson`: each client takes part with probability clients_per_round / N,
    independently of all others and of all other rounds. A cohort can be empty.
  - `fixed_size`: a uniformly random subset of exactly clients_per_round.
  - `full`: everybody.

  Time and memory follow the cohort, not the population.

  Args:
    cohort: The sampling scheme and the (expected) cohort size.
    population: N, the number of clients that could take part.
    seed: The run's seed, a whole number >= 0.

  Raises:
    UsageError: If the cohort size is unset (not solved yet) or larger than the
      population.
  """
  if cohort.sampling is config.Sampling.FULL:
    return lambda round_num: np.arange(population, dtype=np.int64)
  size = cohort.clients_per_round
  if size is None or size > population:
    raise validate.error(
      'cohort.clients_per_round',
      expected=f'at most {population}, the number of clients',
      found='nothing' if size is None else size,
    )

  def sample_fixed_size(round_num: int) -> np.ndarray:
    return _subset(_generator(seed, round_num), population, size)

  def sample_poisson(round_num: int) -> np.ndarray:
    # A binomial size and then a uniform subset of that size has the same
    # distribution as one coin per client, without N coins.
    generator = _generator(seed, round_num)
    return _subset(
      generator, population, generator.binomial(population, size / population)
    )

  if cohort.sampling is config.Sampling.FIXED_SIZE:
    return sample_fixed_size
  return sample_poisson


def expected_size(cohort: config.Cohort, *, population: int) -> float:
  """Returns the expected number of clients in a round.

  >>> expected_size(config.full(), population=300)
  300.0
  """
  if cohort.sampling is config.Sampling.FULL:
    return float(population)
  return float(cohort.clients_per_round)


def are_stragglers(
  seed: int, round_num: int, clients: np.ndarray, *, share: float
) -> np.ndarray:
  """Returns which clients of a cohort are too slow in a round; bool[m].

  A share of the cohort, rounded to whole clients (of two numbers as close, the
  even one), as in Li et al. 2020 (arXiv:1812.06127), section 5.1.

  Args:
    seed: The run's seed.
    round_num: 1-based.
    clients: Indices of different clients, in any order; int64[m].
    share: In [0, 1).
  """
  chosen = _straggler_draws(seed, round_num).permutation(len(clients))
  by_index = np.argsort(clients)
  slow = np.zeros(len(clients), bool)
  slow[by_index[chosen[: round(share * len(clients))]]] = True
  return slow


def epochs_done(
  seed: int, round_num: int, clients: np.ndarray, *, share: float, epochs: int
) -> np.ndarray:
  """Returns how many epochs each client gets through; int64[m].

  Stragglers get through 1 to epochs - 1, each number being as likely.

  Args:
    seed: The run's seed.
    round_num: 1-based.
    clients: Indices of different clients, in any order; int64[m].
    share: Share of stragglers; see `are_stragglers`.
    epochs: What the others get through; at least 2.
  """
  slow = are_stragglers(seed, round_num, clients, share=share)
  generator = _straggler_draws(seed, round_num)
  generator.permutation(len(clients))  # Drawn for who is slow.
  fewer = np.empty(len(clients), np.int64)
  fewer[np.argsort(clients)] = generator.integers(1, epochs, len(clients))
  return np.where(slow, fewer, epochs)


def without_stragglers(sampler: Sampler, *, share: float, seed: int) -> Sampler:
  """Returns the sampler of cohorts whose stragglers were dropped.

  Not for cohorts that are priced: who is slow depends on the whole cohort.
  """

  def sample(round_num: int) -> np.ndarray:
    clients = sampler(round_num)
    return clients[~are_stragglers(seed, round_num, clients, share=share)]

  return sample


def _straggler_draws(seed: int, round_num: int) -> np.random.Generator:
  return np.random.default_rng(_sequence(seed, _STRAGGLER_STREAM, round_num))


def client_keys(seed: int, round_num: int, clients: np.ndarray) -> np.ndarray:
  """Returns the shuffle keys of some clients in one round.

  A key depends on seed, round and client alone, not on who else takes part.
  Keys of different clients differ within a round; across rounds and seeds they
  are 128-bit values that coincide with negligible probability. For shuffling
  only: this is no cryptographic generator, and DP noise never derives from it.

  Args:
    seed: The run's seed.
    round_num: 1-based.
    clients: Integer array [m] of client indices.

  Returns:
    int64[m, 2]: seeds for `tf.random.stateless_*`.
  """
  words = _sequence(seed, _SHUFFLE_STREAM, round_num).generate_state(
    2, np.uint64
  )
  indices = np.asarray(clients).astype(np.uint64)
  return _splitmix64(words[np.newaxis, :], indices[:, np.newaxis]).view(
    np.int64
  )


def client_key(seed: int, round_num: int, client: int) -> np.ndarray:
  """Returns the shuffle key int64[2] of one client; see `client_keys`."""
  return client_keys(seed, round_num, np.array([client]))[0]


def _sequence(seed: int, stream: int, round_num: int) -> np.random.SeedSequence:
  # Not SeedSequence([seed, stream, round_num]): there the words of a seed above
  # 2**32 shift the others, so that different triples coincide.
  return np.random.SeedSequence(seed, spawn_key=(stream, round_num))


def _generator(seed: int, round_num: int) -> np.random.Generator:
  return np.random.default_rng(_sequence(seed, _COHORT_STREAM, round_num))


def _subset(
  generator: np.random.Generator, population: int, size: int
) -> np.ndarray:
  """Returns a uniformly random subset, sorted: int64[size]."""
  chosen = generator.choice(population, size, replace=False, shuffle=False)
  return np.sort(chosen)


def _splitmix64(state: np.ndarray, steps: np.ndarray) -> np.ndarray:
  """Returns output number `steps` (0-based) of SplitMix64 from `state`.

  For a fixed state, different steps give different outputs: the mixing is a
  bijection. Steele, Lea, Flood. Fast splittable pseudorandom number
  generators. OOPSLA 2014; constants of Vigna's public-domain splitmix64.c.
  """
  mixed = state + (steps + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
  mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return mixed ^ (mixed >> np.uint64(31))
