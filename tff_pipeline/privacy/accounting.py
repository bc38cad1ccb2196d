"""What a guarantee is, and its epsilon.

A guarantee is a frozen record: what is protected from whom, neighbouring
relation, sampler, releases, and bounds; `guarantees` says which mechanism gives
which. The headline is the smallest price over all bounds and accountants, with
its name.

Some runs have more than one guarantee, each under a relation of its own:
`Guarantee.also` names the others.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import enum
import math
import types

import dp_accounting

from tff_pipeline import config
from tff_pipeline.privacy import accountants
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import ledger
from tff_pipeline.privacy import participations

ACCOUNTANTS: Mapping[str, Callable[..., float]] = types.MappingProxyType(
  {'pld': accountants.pld, 'rdp': accountants.rdp}
)
"""Name -> (event, dp_accounting relation, *, delta) -> epsilon."""

Released = int | ledger.Releases
"""Rounds that were each released once; or what the ledger recorded."""

RELATIONS = types.MappingProxyType(
  {
    config.Relation.ADD_OR_REMOVE_ONE: accountants.Relation.ADD_OR_REMOVE_ONE,
    config.Relation.REPLACE_ONE: accountants.Relation.REPLACE_ONE,
    config.Relation.ZERO_OUT: accountants.Relation.REPLACE_SPECIAL,
  }
)


class Scope(enum.StrEnum):
  """What is protected, and from whom."""

  NONE = 'none'
  USER = 'user'
  LOCAL = 'local'
  SUM_OF_LOCAL = 'sum_of_local'
  CLIENT_EXAMPLE = 'client_example'
  POOLED_EXAMPLE = 'pooled_example'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clients:
  """The guarantees that clients have each on its own account.

  Attributes:
    participations: How often each took part.
    event: What a client that took part so often released.
    relation: The relation that it is priced under: the guarantee's own or one
      that implies it.
  """

  participations: participations.Participations
  event: Callable[[int], dp_accounting.DpEvent]
  relation: config.Relation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
  """What a mechanism promises; `headline` puts a number to it.

  Attributes:
    scope: What is protected, and from whom.
    relation: Which data sets are neighbours; `None` without a mechanism.
    sampler: How cohorts are drawn, as run, or as extrapolated to.
    releases: Everything that is noised in one round, or in one step. All come
      from one cohort, or batch.
    bounds: Valid analyses; at least one.
    clients: Where each client has a guarantee of its own. The bounds then are
      those of the client that took part most often.
    extrapolated: Whether it is that of another run, with larger cohorts.
    also: Name -> further guarantees of the same run, on their own terms.
  """

  scope: Scope
  relation: config.Relation | None
  sampler: str
  releases: tuple[bounds.Release, ...]
  bounds: tuple[bounds.Bound, ...]
  clients: Clients | None = None
  extrapolated: bool = False
  also: Mapping[str, 'Guarantee'] = dataclasses.field(default_factory=dict)

  @property
  def unit(self) -> str | None:
    """'user', 'example', or `None` without a mechanism."""
    if self.scope is Scope.NONE:
      return None
    examples = (Scope.CLIENT_EXAMPLE, Scope.POOLED_EXAMPLE)
    return 'example' if self.scope in examples else 'user'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
  """Epsilon of one bound by one accountant."""

  epsilon: float
  accountant: str
  bound: str


def epsilon(
  guaranteed: Guarantee,
  released: Released,
  *,
  delta: float | None,
  accountant: str,
) -> float:
  """Returns the smallest epsilon that one accountant finds over all bounds.

  Args:
    guaranteed: From `guarantees.build`.
    released: What was released.
    delta: In (0, 1); `None` only without a mechanism.
    accountant: A name from `ACCOUNTANTS`.

  Returns:
    Epsilon; infinity if the accountant knows no bound.
  """
  found = prices(
    guaranteed, released, delta=delta, accountants_used=[accountant]
  )
  return found[0].epsilon if found else math.inf


def headline(
  guaranteed: Guarantee, released: Released, *, delta: float | None
) -> Price:
  """Returns the smallest epsilon over bounds and accountants, with its name.

  After the first call of a process it takes some hundredths of a second. A
  pure function of its arguments: not of when it was called before.
  """
  return prices(guaranteed, released, delta=delta)[0]


def prices(
  guaranteed: Guarantee,
  released: Released,
  *,
  delta: float | None,
  accountants_used: Iterable[str] = tuple(ACCOUNTANTS),
) -> list[Price]:
  """Returns every bound by every accountant that can price it, best first."""
  found = []
  for bound in guaranteed.bounds:
    event = bound.event(releases(released))
    for name in accountants_used:
      try:
        value = ACCOUNTANTS[name](event, RELATIONS[bound.relation], delta=delta)
      except dp_accounting.UnsupportedEventError:
        continue
      found.append(Price(epsilon=value, accountant=name, bound=bound.name))
  return sorted(found, key=lambda price: price.epsilon)


def client_epsilon(
  guaranteed: Guarantee,
  participations_: int,
  *,
  delta: float,
  accountants_used: Iterable[str] = tuple(ACCOUNTANTS),
) -> float:
  """Returns the smallest epsilon of a client that took part so often."""
  event = guaranteed.clients.event(participations_)
  relation = RELATIONS[guaranteed.clients.relation]
  return min(
    ACCOUNTANTS[name](event, relation, delta=delta) for name in accountants_used
  )


def releases(released: Released) -> ledger.Releases:
  """Returns what was released as the ledger records it.

  >>> releases(40)
  Releases(rounds=40, repeated={})
  """
  if isinstance(released, int):
    return ledger.Releases(released)
  return released
