"""How often each client took part: a function of the seed and the rounds.

For guarantees that each client has on its own account, such as local and
example-level privacy: what a client released is what it took part in.
"""

import functools

import numpy as np

from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline.privacy import ledger


class Participations:
  """Releases of each client. A round under k noise keys counts k times."""

  def __init__(
    self, cohort: config.Cohort, *, population: int, seed: int
  ) -> None:
    """Initializes the counts.

    Args:
      cohort: The sampling, with its size solved.
      population: Number of clients.
      seed: The run's seed, which decides the cohorts.
    """
    self._key = (cohort, population, seed)

  def most(self, releases: ledger.Releases) -> int:
    """Returns the releases of the client that has most of them.

    Another round costs one cohort: it may be asked after every round.
    """
    return _tally(*self._key, _repeated(releases)).most(releases.rounds)

  def of_clients(self, releases: ledger.Releases) -> np.ndarray:
    """Returns int64[population]: the releases of each client."""
    # A tally cannot go back, and its counts are wanted once: not the cached.
    tally = _tally.__wrapped__(*self._key, _repeated(releases))
    return tally.of_clients(releases.rounds)


class _Everybody:
  """Full participation."""

  def __init__(self, population: int, repeated: dict[int, int]) -> None:
    self._population = population
    self._extra = sum(repeated.values()) - len(repeated)

  def most(self, rounds: int) -> int:
    return rounds + self._extra

  def of_clients(self, rounds: int) -> np.ndarray:
    return np.full(self._population, self.most(rounds), np.int64)


class _Tally:
  """Sampled cohorts, counted round by round."""

  def __init__(
    self, sample: sampling.Sampler, population: int, repeated: dict[int, int]
  ) -> None:
    self._sample = sample
    self._repeated = repeated
    self._counts = np.zeros(population, np.int64)
    self._most = [0]  # After each round.

  def most(self, rounds: int) -> int:
    for round_num in range(len(self._most), rounds + 1):
      clients = self._sample(round_num)
      self._counts[clients] += self._repeated.get(round_num, 1)
      largest = self._counts[clients].max(initial=self._most[-1])
      self._most.append(int(largest))
    return self._most[rounds]

  def of_clients(self, rounds: int) -> np.ndarray:
    self.most(rounds)
    return self._counts


def _repeated(releases: ledger.Releases) -> tuple[tuple[int, int], ...]:
  return tuple(sorted(releases.repeated.items()))


@functools.lru_cache(maxsize=8)
def _tally(
  cohort: config.Cohort,
  population: int,
  seed: int,
  repeated: tuple[tuple[int, int], ...],
) -> _Everybody | _Tally:
  if cohort.sampling is config.Sampling.FULL:
    return _Everybody(population, dict(repeated))
  sample = sampling.build(cohort, population=population, seed=seed)
  return _Tally(sample, population, dict(repeated))
