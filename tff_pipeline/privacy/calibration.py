"""Solving for noise, rounds or cohort size at a target epsilon.

Every search ends on a value that was priced by the headline accountant and
found to be within the target, so a solution never exceeds it.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger

MOST_ROUNDS = 1_000_000
"""No search looks beyond this many rounds."""

# A solved noise multiplier spends at least this share of the target epsilon.
_SPENT = 0.999
_LARGEST_NOISE = 1e6
# Reached only if nobody ever takes part.
_SMALLEST_NOISE = 1e-9
_STEPS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
  """What a target epsilon was solved for.

  Attributes:
    leaf: Dotted name of the solved leaf.
    value: Its value.
    target_epsilon: What was asked for.
    price: What the value costs: at most the target.
  """

  leaf: str
  value: float | int
  target_epsilon: float
  price: accounting.Price


def solve(terms: config.Terms, *, rounds: int | None) -> Solution:
  """Solves `privacy.solve_for` so that `privacy.target_epsilon` is kept.

  Where a run has more than one guarantee, the target is that of the first.

  Noise multipliers are the smallest up to a thousandth of the target, rounded
  up to five digits; rounds and clients per round are the largest (from 10,000
  on, up to a ten-thousandth).

  Args:
    terms: With a target epsilon. What is solved for is unset.
    rounds: Number of rounds; `None` if that is what is solved for.

  Raises:
    UsageError: If no value keeps the target, or the leaf cannot be solved for
      with this mechanism.
  """
  wanted = terms.privacy.solve_for or config.SolveFor.NOISE_MULTIPLIER
  solvers = {
    config.SolveFor.NOISE_MULTIPLIER: _solve_noise,
    config.SolveFor.ROUNDS: _solve_rounds,
    config.SolveFor.CLIENTS_PER_ROUND: _solve_cohort,
  }
  return solvers[wanted](terms, rounds)


def max_rounds(
  guaranteed: accounting.Guarantee,
  *,
  delta: float | None,
  epsilon: float,
  limit: int = MOST_ROUNDS,
  recorded: ledger.Releases | None = None,
) -> int:
  """Returns the last round that may run without exceeding epsilon.

  Args:
    guaranteed: From `guarantees.build`.
    delta: In (0, 1); `None` only without a mechanism.
    epsilon: Largest headline epsilon.
    limit: The largest answer of interest, such as the planned rounds.
    recorded: What the ledger recorded so far. Rounds after it are taken to be
      released once.

  Returns:
    The number of rounds in total, at most `limit`; from 10,000 on, possibly a
    ten-thousandth too small. If what is recorded alone exceeds epsilon: 0.
  """
  recorded = recorded or ledger.Releases(0)
  done = recorded.rounds

  def price(rounds: int) -> float:
    released = dataclasses.replace(recorded, rounds=rounds)
    return accounting.headline(guaranteed, released, delta=delta).epsilon

  if price(done) > epsilon:
    return 0
  return _largest(price, epsilon, first=done, limit=max(done, limit))


def _solve_noise(terms: config.Terms, rounds: int | None) -> Solution:
  def price(noise: float) -> accounting.Price:
    return _price(_fill(terms, noise_multiplier=noise), rounds)

  target = terms.privacy.target_epsilon
  limit, remedy = _noise_limit(terms.privacy)
  noise = _smallest(lambda z: price(z).epsilon, target, limit=limit)
  if noise is None:
    raise validate.error(
      'privacy.target_epsilon',
      expected=f'a target that noise multipliers up to {limit:g} keep',
      found=target,
      remedy=f'Raise it, lower --rounds, or {remedy}',
    )
  rounded = _round_up(noise)
  if rounded <= limit and price(rounded).epsilon <= target:
    noise = rounded
  return Solution(
    leaf='privacy.noise_multiplier',
    value=noise,
    target_epsilon=target,
    price=price(noise),
  )


def _noise_limit(privacy: config.Privacy) -> tuple[float, str]:
  """Returns the largest noise multiplier to look at, and how to raise it."""
  if privacy.mechanism is config.Mechanism.GAUSSIAN_ADAPTIVE:
    # The count's own noise bounds that of sum and count together.
    limit = 2 * privacy.clipped_count_stddev * (1 - 1e-6)
    return limit, 'raise --privacy.clipped_count_stddev'
  return _LARGEST_NOISE, 'sample fewer clients'


def _solve_rounds(terms: config.Terms, rounds: int | None) -> Solution:
  del rounds
  privacy = terms.privacy
  target = privacy.target_epsilon
  guaranteed = guarantees.build(_fill(terms))
  found = max_rounds(guaranteed, delta=privacy.delta, epsilon=target)
  if found == 0:
    raise validate.error(
      'privacy.target_epsilon',
      expected='a target that one round keeps',
      found=target,
      remedy='Raise it or --privacy.noise_multiplier',
    )
  if found == MOST_ROUNDS:
    raise validate.error(
      'privacy.target_epsilon',
      expected=f'a target that {MOST_ROUNDS} rounds exceed',
      found=target,
      remedy='Give --rounds, and lower --privacy.noise_multiplier',
    )
  return Solution(
    leaf='rounds',
    value=found,
    target_epsilon=target,
    price=accounting.headline(guaranteed, found, delta=privacy.delta),
  )


def _solve_cohort(terms: config.Terms, rounds: int | None) -> Solution:
  privacy = terms.privacy
  target = privacy.target_epsilon
  _check_cohort_is_priced(privacy)

  def price(size: int) -> accounting.Price:
    cohort = dataclasses.replace(terms.cohort, clients_per_round=size)
    filled = dataclasses.replace(_fill(terms), cohort=cohort)
    return _price(filled, rounds)

  if price(1).epsilon > target:
    raise validate.error(
      'privacy.target_epsilon',
      expected='a target that cohorts of one client keep: '
      f'{price(1).epsilon:.3g} or more',
      found=target,
      remedy='Raise it or --privacy.noise_multiplier, or lower --rounds',
    )
  size = _largest(
    lambda m: price(m).epsilon, target, first=1, limit=privacy.population
  )
  return Solution(
    leaf='cohort.clients_per_round',
    value=size,
    target_epsilon=target,
    price=price(size),
  )


def _check_cohort_is_priced(privacy: config.Privacy) -> None:
  """Refuses to solve for a cohort size that epsilon does not follow."""
  reason = None
  if privacy.noise_cohort_size is not None:
    reason = '--privacy.noise_cohort_size is what is priced'
  elif privacy.mechanism not in (
    config.Mechanism.GAUSSIAN,
    config.Mechanism.GAUSSIAN_ADAPTIVE,
  ):
    reason = (
      f'--privacy.mechanism={privacy.mechanism} has the epsilon of the client '
      'that takes part most often, which need not grow with the cohorts'
    )
  if reason is not None:
    raise validate.error(
      'privacy.solve_for',
      expected=f'noise_multiplier or rounds, since {reason}',
      found=config.SolveFor.CLIENTS_PER_ROUND,
    )


def _fill(terms: config.Terms, **leaves: Any) -> config.Terms:
  privacy = dataclasses.replace(
    terms.privacy, target_epsilon=None, solve_for=None, **leaves
  )
  return dataclasses.replace(terms, privacy=privacy)


def _price(terms: config.Terms, rounds: int) -> accounting.Price:
  guaranteed = guarantees.build(terms)
  return accounting.headline(guaranteed, rounds, delta=terms.privacy.delta)


def _smallest(
  price: Callable[[float], float], target: float, *, limit: float
) -> float | None:
  """Returns nearly the smallest noise that is within the target.

  Args:
    price: Epsilon of a noise multiplier; falls as the noise grows.
    target: Largest epsilon.
    limit: The largest noise multiplier.

  Returns:
    A noise multiplier whose epsilon is in [_SPENT * target, target], unless
    the price jumps over that; `None` if there is none up to the limit.
  """
  price = functools.cache(price)
  within = min(1.0, limit)
  while price(within) > target:
    if within == limit:
      return None
    # Epsilon falls at least like 1/z, so this does not overshoot by much.
    within *= min(max(price(within) / target, 1.2), 10.0)
    within = min(within, limit)
  beyond = within
  while price(beyond) <= target:
    if price(beyond) >= _SPENT * target or beyond < _SMALLEST_NOISE:
      return beyond
    within, beyond = beyond, beyond / 2

  def is_close(good: float, bad: float) -> bool:
    return price(good) >= _SPENT * target or good <= bad * (1 + 1e-9)

  return _search(price, target, within, beyond, is_close=is_close)


def _largest(
  price: Callable[[int], float], target: float, *, first: int, limit: int
) -> int:
  """Returns the largest whole number within the target.

  Of numbers from 10,000, one that is at most a ten-thousandth smaller.

  Args:
    price: Epsilon of a number; does not fall as the number grows.
    target: Largest epsilon.
    first: A number that is within the target.
    limit: The largest answer.
  """
  price = functools.cache(price)
  earlier, within, beyond = first, first, None
  while beyond is None and within < limit:
    guess = _further(price, target, earlier, within)
    guess = min(max(guess, within + 1), limit)
    if price(guess) <= target:
      earlier, within = within, guess
    else:
      beyond = guess
  if beyond is None:
    return within
  return _search(
    price,
    target,
    within,
    beyond,
    is_close=lambda good, bad: bad - good <= 1 + good // 10_000,
  )


def _further(
  price: Callable[[int], float], target: float, earlier: int, within: int
) -> int:
  """Returns a number at which the price should about reach the target."""
  before, now = price(earlier), price(within)
  if earlier == 0 or not 0 < before < now:
    return max(100 * within, 10)
  power = math.log(now / before) / math.log(within / earlier)
  factor = 1.02 * (target / now) ** (1 / max(power, 0.3))
  return math.ceil(within * min(factor, 100.0))


def _search(
  price: Callable[[Any], float],
  target: float,
  within: Any,
  beyond: Any,
  *,
  is_close: Callable[[Any, Any], bool],
) -> Any:
  """Returns the value within the target when the two are close.

  Regula falsi on the logarithms, Illinois variant; bisection where a price has
  no logarithm. Whole numbers stay whole.
  """
  weights = {v: _gap(price(v), target) for v in (within, beyond)}
  previous = None
  for _ in range(_STEPS):
    if is_close(within, beyond):
      break
    middle = _between(within, beyond, weights[within], weights[beyond])
    gap = _gap(price(middle), target)
    kept = beyond if gap <= 0 else within
    weights[middle] = gap
    if previous == kept:
      weights[kept] /= 2
    previous = kept
    if gap <= 0:
      within = middle
    else:
      beyond = middle
  return within


def _gap(epsilon: float, target: float) -> float:
  if epsilon == 0:
    return -math.inf
  return math.log(epsilon / target) if math.isfinite(epsilon) else math.inf


def _between(
  within: Any, beyond: Any, gap_within: float, gap_beyond: float
) -> Any:
  share = 0.5
  if math.isfinite(gap_beyond - gap_within) and gap_beyond > gap_within:
    share = min(max(gap_within / (gap_within - gap_beyond), 0.01), 0.99)
  low = within or 0.5  # No logarithm of zero rounds.
  middle = low * (beyond / low) ** share
  if isinstance(within, int):
    smaller, larger = sorted((within, beyond))
    return min(max(round(middle), smaller + 1), larger - 1)
  return middle


def _round_up(value: float) -> float:
  """Returns the value rounded up to five significant digits."""
  quantum = 10.0 ** (math.floor(math.log10(value)) - 4)
  return float(f'{math.ceil(value / quantum) * quantum:.5g}')
