"""Valid analyses of what a run releases, each as one `DpEvent`.

A *bound* maps what the ledger counted to an event whose price is an upper bound
on the privacy loss. There may be several, since no single analysis of
fixed-size cohorts is the best one everywhere.

z is the noise standard deviation on a sum of clipped contributions, over the
clip norm; what the sum is divided by is public. For m of N contributions:

  sampling    relation           bounds
  ----------  -----------------  ----------------------------------------------
  poisson     add_or_remove_one  Poisson(m/N, Gaussian(z)); Gaussian(z)
  poisson     zero_out           the same
  poisson     replace_one        refused
  fixed_size  add_or_remove_one  refused
  fixed_size  replace_one        WithoutReplacement(N, m, Gaussian(z/2));
                                 Gaussian(z/2)
  fixed_size  zero_out           Gaussian(z);
                                 WithoutReplacement(N, m, Gaussian(z/2))
  full        any                Gaussian(z), of z/2 under replace_one
"""

from collections.abc import Callable
import dataclasses
import math

import dp_accounting

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import ledger

DEFAULT_RELATION = {
  config.Sampling.POISSON: config.Relation.ADD_OR_REMOVE_ONE,
  config.Sampling.FIXED_SIZE: config.Relation.REPLACE_ONE,
  config.Sampling.FULL: config.Relation.ADD_OR_REMOVE_ONE,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
  """One aggregate that leaves the clients with noise.

  Attributes:
    name: What is released.
    clip_norm: Largest L2 norm of one contribution to the sum.
    noise_multiplier: Noise standard deviation on the sum, over clip_norm.
  """

  name: str
  clip_norm: float
  noise_multiplier: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
  """One valid analysis of everything that a run releases.

  Attributes:
    name: Short name, such as 'poisson'.
    why: Why its price is an upper bound, in one clause.
    relation: The relation that it is priced under: the guarantee's own or one
      that implies it.
    event: What the rounds released, to one event. Not necessarily a sum over
      rounds.
  """

  name: str
  why: str
  relation: config.Relation
  event: Callable[[ledger.Releases], dp_accounting.DpEvent]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
  """What the parts of a sampled sum are called, in the singular."""

  one: str
  contribution: str
  group: str


CLIENTS = Words(one='client', contribution='update', group='cohort')
EXAMPLES = Words(one='example', contribution='gradient', group='batch')


def step_gradient(clip_norm: float, noise_multiplier: float) -> Release:
  """Returns what each step of DP-SGD releases."""
  return Release(
    name='step_gradient',
    clip_norm=clip_norm,
    noise_multiplier=noise_multiplier,
  )


def combined_noise_multiplier(releases: tuple[Release, ...]) -> float:
  """Returns the noise multiplier of all releases from one cohort together.

  (sum z_i^-2)^-1/2, for they are one Gaussian mechanism after rescaling each
  by its noise. To be priced inside one sampling event: as separately sampled
  events they would look cheaper than they are.
  """
  if any(release.noise_multiplier == 0 for release in releases):
    return 0.0
  return sum(r.noise_multiplier**-2 for r in releases) ** -0.5


def remaining_noise_multiplier(together: float, *, other: float) -> float:
  """Returns what a release may have beside `other`, to have `together` with it.

  (z^-2 - z_other^-2)^-1/2, the inverse of `combined_noise_multiplier`.

  Args:
    together: Noise multiplier of both releases; 0 leaves 0.
    other: That of the other release; above `together`.

  >>> round(remaining_noise_multiplier(3.0, other=5.0), 9)
  3.75
  """
  if not together:
    return 0.0
  return (together**-2 - other**-2) ** -0.5


def refuse(
  relation: config.Relation, *, expected: str, remedy: str
) -> validate.UsageError:
  """Returns the error of a relation that cannot be priced."""
  return validate.error(
    'privacy.relation', expected=expected, found=relation, remedy=remedy
  )


def sampled(
  relation: config.Relation,
  cohort: config.Cohort,
  *,
  noise_multiplier: float,
  population: int,
  repeat: int = 1,
  words: Words = CLIENTS,
) -> tuple[Bound, ...]:
  """Returns the table at the head of this module, one cell.

  Args:
    relation: Which data sets are neighbours.
    cohort: How contributions are sampled, and how many.
    noise_multiplier: Of everything that is released from one cohort together.
    population: What the cohort is sampled from.
    repeat: Independent cohorts in one round.
    words: What they are called.

  Raises:
    UsageError: If the relation cannot be priced for this sampling.
  """
  sampling = cohort.sampling
  check_relation(relation, sampling)
  plain = unamplified(
    relation, noise_multiplier=noise_multiplier, repeat=repeat, words=words
  )
  if sampling is config.Sampling.FULL:
    return (plain,)
  if sampling is config.Sampling.POISSON:
    amplified = _poisson(
      cohort.clients_per_round / population, noise_multiplier, repeat, words
    )
  else:
    amplified = _without_replacement(
      population, cohort.clients_per_round, noise_multiplier, repeat, words
    )
  return amplified, plain


def check_relation(
  relation: config.Relation, sampling: config.Sampling
) -> None:
  """Raises `UsageError` if the table refuses this cell."""
  if (sampling, relation) in _REFUSED:
    default = DEFAULT_RELATION[sampling]
    raise refuse(
      relation,
      expected=_REFUSED[sampling, relation],
      remedy=f'Set --privacy.relation={default}, or sample in another way',
    )


_REFUSED = {
  (config.Sampling.POISSON, config.Relation.REPLACE_ONE): (
    'a relation that Poisson sampling is priced under, add_or_remove_one or '
    'zero_out (epsilon there implies replace-one at 2 epsilon and '
    '(1 + exp(epsilon)) delta)'
  ),
  (config.Sampling.FIXED_SIZE, config.Relation.ADD_OR_REMOVE_ONE): (
    'a relation between populations of one size, replace_one or zero_out: one '
    'more would change the fixed-size sample of everybody'
  ),
}


def unamplified(
  relation: config.Relation,
  *,
  noise_multiplier: float,
  repeat: int = 1,
  words: Words = CLIENTS,
) -> Bound:
  """Returns the bound that holds even if everybody knew the cohorts."""
  replaced = relation is config.Relation.REPLACE_ONE
  noise = noise_multiplier / 2 if replaced else noise_multiplier
  distance = 'twice the clip norm' if replaced else 'the clip norm'
  return Bound(
    name='unamplified',
    why=f'even if everybody knew each {words.group}, one {words.one} moves the '
    f'sum by up to {distance}',
    relation=relation,
    event=_composed(lambda keys: _gaussian(noise, keys=keys), repeat),
  )


def own_account(
  relation: config.Relation,
  *,
  noise_multiplier: float,
  repeat: int,
  sampling_rate: float | None = None,
) -> Callable[[int], dp_accounting.DpEvent]:
  """Returns participations of one client -> the event of its own data.

  Its data do not hide among those of others: what amplifies are coins of their
  own, if there are any.

  Args:
    relation: Which data sets are neighbours; `replace_one` doubles the
      sensitivity, and is not for Poisson samples.
    noise_multiplier: Of one Gaussian mechanism.
    repeat: Mechanisms that touch the same data in one participation, each
      with fresh noise.
    sampling_rate: Chance of the data to be in one mechanism, each time by a
      fresh coin; unset means that they are in all.
  """
  replaced = relation is config.Relation.REPLACE_ONE
  noise = noise_multiplier / 2 if replaced else noise_multiplier
  event = _gaussian(noise, keys=1)
  if sampling_rate is not None:
    event = dp_accounting.PoissonSampledDpEvent(sampling_rate, event)
  return lambda participations: _repeated(event, repeat * participations)


def _poisson(rate: float, noise: float, repeat: int, words: Words) -> Bound:
  def one_cohort(keys: int) -> dp_accounting.DpEvent:
    return dp_accounting.PoissonSampledDpEvent(
      rate, _gaussian(noise, keys=keys)
    )

  return Bound(
    name='poisson',
    why=f'each {words.one} takes part by its own coin, which hides whether it '
    f'did; a zeroed {words.contribution} adds what an absent {words.one} adds, '
    'nothing',
    relation=config.Relation.ADD_OR_REMOVE_ONE,
    event=_composed(one_cohort, repeat),
  )


def _without_replacement(
  population: int, size: int, noise: float, repeat: int, words: Words
) -> Bound:
  def one_cohort(keys: int) -> dp_accounting.DpEvent:
    return dp_accounting.SampledWithoutReplacementDpEvent(
      population, size, _gaussian(noise / 2, keys=keys)
    )

  return Bound(
    name='without_replacement',
    why=f'a random {words.group} hides who took part; replacing one '
    f'{words.contribution} moves the sum by up to twice the clip norm, hence '
    'half the noise multiplier, and zeroing one is a case of replacing it',
    relation=config.Relation.REPLACE_ONE,
    event=_composed(one_cohort, repeat),
  )


def _gaussian(noise: float, *, keys: int) -> dp_accounting.DpEvent:
  """Returns one cohort's releases under `keys` independent noise keys."""
  return dp_accounting.GaussianDpEvent(float(noise) / math.sqrt(keys))


def _composed(
  one_cohort: Callable[[int], dp_accounting.DpEvent], repeat: int
) -> Callable[[ledger.Releases], dp_accounting.DpEvent]:
  """Returns the composition over rounds of `repeat` cohorts each."""

  def event(releases: ledger.Releases) -> dp_accounting.DpEvent:
    rounds = [
      _repeated(one_cohort(keys), repeat * number)
      for keys, number in releases.by_keys().items()
    ]
    if not rounds:
      return dp_accounting.NoOpDpEvent()
    return (
      rounds[0] if len(rounds) == 1 else dp_accounting.ComposedDpEvent(rounds)
    )

  return event


def _repeated(
  event: dp_accounting.DpEvent, count: int
) -> dp_accounting.DpEvent:
  if count == 0:
    return dp_accounting.NoOpDpEvent()
  return dp_accounting.SelfComposedDpEvent(event, count)


def not_private() -> Bound:
  """Returns the bound of what is released as it is."""
  return Bound(
    name='none',
    why='nothing is noised',
    relation=config.Relation.ADD_OR_REMOVE_ONE,
    event=_composed(lambda keys: dp_accounting.NonPrivateDpEvent(), 1),
  )
