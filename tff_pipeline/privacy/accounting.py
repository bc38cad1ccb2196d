"""What a mechanism guarantees, and its epsilon.

`guarantee` turns the privacy and cohort leaves of a config into one frozen
record: unit, neighbouring relation, sampler, releases, and *bounds*. A bound
maps what the ledger counted to one `DpEvent` whose price is a valid upper
bound on the privacy loss. There may be several, since no single analysis of
fixed-size cohorts is the best one everywhere; the headline is the smallest
price over all bounds and accountants, with its name.

The noise multiplier is the noise standard deviation on the *sum* of the
clipped updates over the clip norm; what the sum is divided by is public.

  sampling    relation           bounds (z: noise multiplier)
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

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import math
import types

import dp_accounting

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accountants

ACCOUNTANTS: Mapping[str, Callable[..., float]] = types.MappingProxyType(
  {'pld': accountants.pld, 'rdp': accountants.rdp}
)
"""Name -> (event, dp_accounting relation, *, delta) -> epsilon."""

Counts = int | Mapping[int, int]
"""Rounds; or k -> the rounds whose cohort released under k noise keys.

{1: 38, 2: 2} is forty rounds, of which two were replayed with fresh noise.
"""

_RELATIONS = {
  config.Relation.ADD_OR_REMOVE_ONE: accountants.Relation.ADD_OR_REMOVE_ONE,
  config.Relation.REPLACE_ONE: accountants.Relation.REPLACE_ONE,
  config.Relation.ZERO_OUT: accountants.Relation.REPLACE_SPECIAL,
}
_DEFAULT_RELATION = {
  config.Sampling.POISSON: config.Relation.ADD_OR_REMOVE_ONE,
  config.Sampling.FIXED_SIZE: config.Relation.REPLACE_ONE,
  config.Sampling.FULL: config.Relation.ADD_OR_REMOVE_ONE,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
  """One aggregate that leaves a round with noise.

  Attributes:
    name: What is released.
    clip_norm: Largest L2 norm of one client's contribution to the sum.
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
    event: k -> number of rounds released under k noise keys, to one event. Not
      necessarily a sum over rounds.
  """

  name: str
  why: str
  relation: config.Relation
  event: Callable[[Mapping[int, int]], dp_accounting.DpEvent]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
  """What a mechanism promises; `headline` puts a number to it.

  Attributes:
    unit: What is protected: 'user', or `None` without a mechanism.
    relation: Which data sets are neighbours; `None` without a mechanism.
    sampler: How cohorts are drawn, as run.
    releases: Every noised aggregate of one round. All come from one cohort.
    bounds: Valid analyses; at least one.
  """

  unit: str | None
  relation: config.Relation | None
  sampler: str
  releases: tuple[Release, ...]
  bounds: tuple[Bound, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
  """Epsilon of one bound by one accountant."""

  epsilon: float
  accountant: str
  bound: str


def guarantee(privacy: config.Privacy, cohort: config.Cohort) -> Guarantee:
  """Returns what this mechanism guarantees with these cohorts.

  Raises:
    UsageError: If the relation cannot be priced for this sampling.
    ValueError: If a leaf that `calibration.solve` has to find is still unset.
  """
  if privacy.mechanism not in _MECHANISMS:
    raise validate.error(
      'privacy.mechanism',
      expected='one of ' + ', '.join(_MECHANISMS) + ', which can be priced',
      found=privacy.mechanism,
    )
  unpriced = {
    'privacy.noise_cohort_size': privacy.noise_cohort_size,
    'privacy.example_noise_multiplier': privacy.example_noise_multiplier,
  }
  for flag, value in unpriced.items():
    if value is not None:
      raise validate.error(
        flag, expected='no value: it cannot be priced yet', found=value
      )
  return _MECHANISMS[privacy.mechanism](privacy, cohort)


def epsilon(
  guaranteed: Guarantee, counts: Counts, *, delta: float | None, accountant: str
) -> float:
  """Returns the smallest epsilon that one accountant finds over all bounds.

  Args:
    guaranteed: From `guarantee`.
    counts: What was released.
    delta: In (0, 1); `None` only without a mechanism.
    accountant: A name from `ACCOUNTANTS`.

  Returns:
    Epsilon; infinity if the accountant knows no bound.
  """
  found = prices(guaranteed, counts, delta=delta, accountants_used=[accountant])
  return found[0].epsilon if found else math.inf


def headline(
  guaranteed: Guarantee, counts: Counts, *, delta: float | None
) -> Price:
  """Returns the smallest epsilon over bounds and accountants, with its name.

  After the first call of a process it takes some hundredths of a second. A
  pure function of its arguments: not of when it was called before.
  """
  return prices(guaranteed, counts, delta=delta)[0]


def prices(
  guaranteed: Guarantee,
  counts: Counts,
  *,
  delta: float | None,
  accountants_used: Iterable[str] = tuple(ACCOUNTANTS),
) -> list[Price]:
  """Returns every bound by every accountant that can price it, best first."""
  released = round_counts(counts)
  found = []
  for bound in guaranteed.bounds:
    event = bound.event(released)
    for name in accountants_used:
      price = ACCOUNTANTS[name]
      try:
        value = price(event, _RELATIONS[bound.relation], delta=delta)
      except dp_accounting.UnsupportedEventError:
        continue
      found.append(Price(epsilon=value, accountant=name, bound=bound.name))
  return sorted(found, key=lambda price: price.epsilon)


def round_counts(counts: Counts) -> dict[int, int]:
  """Returns counts as {noise keys: rounds} without zeros, keys ascending.

  >>> round_counts(40)
  {1: 40}
  """
  if isinstance(counts, int):
    counts = {1: counts}
  if any(keys < 1 or rounds < 0 for keys, rounds in counts.items()):
    raise ValueError(f'not round counts: {dict(counts)}')
  return {keys: counts[keys] for keys in sorted(counts) if counts[keys]}


def _none(privacy: config.Privacy, cohort: config.Cohort) -> Guarantee:
  bound = Bound(
    name='none',
    why='nothing is noised',
    relation=config.Relation.ADD_OR_REMOVE_ONE,
    event=functools.partial(_compose, _non_private_round),
  )
  return Guarantee(
    unit=None,
    relation=None,
    sampler=_sampler_sentence(cohort, population=None),
    releases=(),
    bounds=(bound,),
  )


def _non_private_round(keys: int) -> dp_accounting.DpEvent:
  del keys
  return dp_accounting.NonPrivateDpEvent()


def _gaussian(privacy: config.Privacy, cohort: config.Cohort) -> Guarantee:
  if privacy.noise_multiplier is None:
    raise ValueError('privacy.noise_multiplier is not solved yet')
  relation = privacy.relation or _DEFAULT_RELATION[cohort.sampling]
  release = Release(
    name='model_update',
    clip_norm=privacy.clip_norm,
    noise_multiplier=privacy.noise_multiplier,
  )
  return Guarantee(
    unit='user',
    relation=relation,
    sampler=_sampler_sentence(cohort, population=privacy.population),
    releases=(release,),
    bounds=_user_bounds(
      relation, cohort, (release,), population=privacy.population
    ),
  )


def _gaussian_adaptive(
  privacy: config.Privacy, cohort: config.Cohort
) -> Guarantee:
  """Returns the guarantee of two releases that share `noise_multiplier`.

  Andrew, Thakkar, McMahan, Ramaswamy, "Differentially private learning with
  adaptive clipping", NeurIPS 2021 (arXiv:1905.03871), Theorem 1. The count is
  of indicators minus one half, so one client moves it by one half.
  """
  whole = _gaussian(privacy, cohort)
  z, count = privacy.noise_multiplier, privacy.clipped_count_stddev
  if z and 2 * count <= z:
    raise validate.error(
      'privacy.clipped_count_stddev',
      expected=f'above noise_multiplier / 2 = {z / 2:g}',
      found=count,
    )
  for_sum = (z**-2 - (2 * count) ** -2) ** -0.5 if z else 0.0
  releases = (
    Release(
      name='model_update',
      clip_norm=privacy.clip_norm,
      noise_multiplier=for_sum,
    ),
    Release(name='unclipped_count', clip_norm=0.5, noise_multiplier=2 * count),
  )
  return dataclasses.replace(
    whole,
    releases=releases,
    bounds=_user_bounds(
      whole.relation, cohort, releases, population=privacy.population
    ),
  )


_MECHANISMS = {
  config.Mechanism.NONE: _none,
  config.Mechanism.GAUSSIAN: _gaussian,
  config.Mechanism.GAUSSIAN_ADAPTIVE: _gaussian_adaptive,
}


def combined_noise_multiplier(releases: tuple[Release, ...]) -> float:
  """Returns the noise multiplier of all releases from one cohort together.

  (sum z_i^-2)^-1/2, for they are one Gaussian mechanism after rescaling each
  by its noise. To be priced inside one sampling event: as separately sampled
  events they would look cheaper than they are.
  """
  if any(release.noise_multiplier == 0 for release in releases):
    return 0.0
  return sum(r.noise_multiplier**-2 for r in releases) ** -0.5


def _user_bounds(
  relation: config.Relation,
  cohort: config.Cohort,
  releases: tuple[Release, ...],
  *,
  population: int,
) -> tuple[Bound, ...]:
  """Returns the table at the head of this module, one cell."""
  sampling = cohort.sampling
  if (sampling, relation) in _REFUSED:
    raise validate.error(
      'privacy.relation',
      expected=_REFUSED[sampling, relation],
      found=relation,
      remedy=f'Set --privacy.relation={_DEFAULT_RELATION[sampling]}, or '
      'change --cohort.sampling',
    )
  noise = combined_noise_multiplier(releases)
  if sampling is config.Sampling.FULL:
    return (_unamplified(relation, noise),)
  size = cohort.clients_per_round
  if size is None:
    raise ValueError('cohort.clients_per_round is not solved yet')
  if sampling is config.Sampling.POISSON:
    amplified = _poisson(size / population, noise)
  else:
    amplified = _without_replacement(population, size, noise)
  return amplified, _unamplified(relation, noise)


_REFUSED = {
  (config.Sampling.POISSON, config.Relation.REPLACE_ONE): (
    'a relation that Poisson sampling is priced under, add_or_remove_one or '
    'zero_out (epsilon there implies replace-one at 2 epsilon and '
    '(1 + exp(epsilon)) delta)'
  ),
  (config.Sampling.FIXED_SIZE, config.Relation.ADD_OR_REMOVE_ONE): (
    'a relation between populations of one size, replace_one or zero_out: one '
    'more client would change the fixed-size cohort of everybody'
  ),
}


def _poisson(rate: float, noise: float) -> Bound:
  def one_round(keys: int) -> dp_accounting.DpEvent:
    return dp_accounting.PoissonSampledDpEvent(
      rate, _gaussian_event(noise, keys=keys)
    )

  return Bound(
    name='poisson',
    why='each client takes part by its own coin, which hides whether it did; '
    'a zeroed update adds what an absent client adds, nothing',
    relation=config.Relation.ADD_OR_REMOVE_ONE,
    event=functools.partial(_compose, one_round),
  )


def _without_replacement(population: int, size: int, noise: float) -> Bound:
  def one_round(keys: int) -> dp_accounting.DpEvent:
    return dp_accounting.SampledWithoutReplacementDpEvent(
      population, size, _gaussian_event(noise / 2, keys=keys)
    )

  return Bound(
    name='without_replacement',
    why='a random cohort hides who took part; replacing one update moves the '
    'sum by up to twice the clip norm, hence half the noise multiplier, and '
    'zeroing one is a case of replacing it',
    relation=config.Relation.REPLACE_ONE,
    event=functools.partial(_compose, one_round),
  )


def _unamplified(relation: config.Relation, noise: float) -> Bound:
  replaced = relation is config.Relation.REPLACE_ONE

  def one_round(keys: int) -> dp_accounting.DpEvent:
    return _gaussian_event(noise / 2 if replaced else noise, keys=keys)

  distance = 'twice the clip norm' if replaced else 'the clip norm'
  return Bound(
    name='unamplified',
    why='even if everybody knew the cohorts, one client moves the sum by up '
    f'to {distance}',
    relation=relation,
    event=functools.partial(_compose, one_round),
  )


def _gaussian_event(noise: float, *, keys: int) -> dp_accounting.DpEvent:
  """Returns one cohort's releases under `keys` independent noise keys."""
  return dp_accounting.GaussianDpEvent(float(noise) / math.sqrt(keys))


def _compose(
  one_round: Callable[[int], dp_accounting.DpEvent], counts: Mapping[int, int]
) -> dp_accounting.DpEvent:
  rounds = [
    dp_accounting.SelfComposedDpEvent(one_round(keys), number)
    for keys, number in counts.items()
  ]
  if not rounds:
    return dp_accounting.NoOpDpEvent()
  return (
    rounds[0] if len(rounds) == 1 else dp_accounting.ComposedDpEvent(rounds)
  )


def _sampler_sentence(cohort: config.Cohort, *, population: int | None) -> str:
  everybody = 'all clients' if population is None else f'{population} clients'
  size = cohort.clients_per_round
  sentences = {
    config.Sampling.POISSON: (
      f'Poisson cohorts ({everybody}, each by its own coin; {size} expected)'
    ),
    config.Sampling.FIXED_SIZE: (
      f'cohorts of exactly {size} of {everybody}, without replacement'
    ),
    config.Sampling.FULL: f'full participation ({everybody})',
  }
  return sentences[cohort.sampling]
