"""Tests of noise, with a stated chance of a false alarm."""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6


def assert_stddev(noise: np.ndarray, stddev: float) -> None:
  """Independent N(0, stddev^2) entries pass but once in a million times.

  The sum of squares over the variance is chi-square distributed, and the mean
  is normal; each gets half of the false alarms.
  """
  noise = np.concatenate([np.ravel(part) for part in noise])
  size = noise.size
  low, high = stats.chi2.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], df=size)
  found = np.sum(np.square(noise / stddev))
  assert low < found < high, (
    f'stddev {np.sqrt(found / size) * stddev:.5g} is not {stddev:.5g} '
    f'({size} entries)'
  )
  limit = stats.norm.ppf(1 - FALSE_ALARM / 4) * stddev / np.sqrt(size)
  assert abs(noise.mean()) < limit


def assert_unrelated(parts: list[np.ndarray]) -> None:
  """Independent vectors of normal noise pass but once in a million times.

  No two are equal, and no correlation is larger than chance explains: by
  Fisher's transformation artanh(r) is normal with variance 1/(size - 3).
  """
  vectors = [np.ravel(part) for part in parts]
  size = min(v.size for v in vectors)
  pairs = len(vectors) * (len(vectors) - 1) // 2
  limit = np.tanh(
    stats.norm.ppf(1 - FALSE_ALARM / 2 / pairs) / np.sqrt(size - 3)
  )
  for i, one in enumerate(vectors):
    for other in vectors[:i]:
      one, other = one[:size], other[:size]
      assert not np.any(one == other)
      assert abs(np.corrcoef(one, other)[0, 1]) < limit
