"""What a run guarantees, as JSON and as one sentence.

A statement is a function of config and ledger alone, so anyone who holds a run
directory can derive it again: `python -m experiments.epsilon --run_dir=RUN`.
"""

from collections.abc import Iterable, Mapping
import decimal
from importlib import metadata
import math
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger
from tff_pipeline.privacy import wording

FORMAT = 2

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Over clients, where each has a guarantee of its own."""


def build(
  terms: config.Terms,
  *,
  released: accounting.Released,
  replays: Mapping[int, int] | None = None,
  solved: Mapping[str, Any] | None = None,
  uncovered: Iterable[str] = (),
  accountants_used: Iterable[str] = tuple(accounting.ACCOUNTANTS),
) -> dict[str, Any]:
  """Returns the statement, ready for JSON (infinity is the string 'inf').

  Further guarantees of the same run are nested in it under the names of
  `accounting.Guarantee.also`. Each has a relation of its own: figures of two of
  them are not to be compared as if they were of one kind.

  Args:
    terms: What the run is priced on, with the solved leaf filled in.
    released: What was released: `Ledger.release_counts`, or planned rounds.
    replays: Round -> attempts beyond the first: `Ledger.replays`.
    solved: What `--privacy.target_epsilon` was solved for, if it was.
    uncovered: What the data set's preparation computed from private data
      without noise, each a clause.
    accountants_used: Names from `accounting.ACCOUNTANTS`: all, for a run.
  """
  guaranteed = guarantees.build(terms)
  released = accounting.releases(released)
  privacy = terms.privacy
  run = {
    'rounds': released.rounds,
    'rounds_by_noise_keys': {
      str(keys): number for keys, number in released.by_keys().items()
    },
    'delta': privacy.delta,
    'simulation': (None if privacy.noise_seed is None else wording.SIMULATION),
  }

  def one(guaranteed: accounting.Guarantee) -> dict[str, Any]:
    priced = _priced(
      guaranteed, released, privacy.delta, tuple(accountants_used)
    )
    return priced | {'sentence': sentence(run | priced)}

  statement = {
    'format': FORMAT,
    'mechanism': str(privacy.mechanism),
    'clipping': privacy.clipping and str(privacy.clipping),
    'algorithm': str(terms.algorithm.name),
    **one(guaranteed),
    **run,
    'accounting': f'dp-accounting {metadata.version("dp-accounting")}',
    **_sampling(terms),
    'attempts_replayed': {str(r): n for r, n in (replays or {}).items()},
    'solved': dict(solved) if solved else None,
    'assumptions': wording.assumptions(terms, guaranteed),
    'not_covered': [*wording.not_covered(terms, guaranteed), *uncovered],
    **{name: one(other) for name, other in guaranteed.also.items()},
  }
  return _plain(statement)


def nested(statement: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Returns the further guarantees of a statement, by name."""
  return {
    name: value
    for name, value in statement.items()
    if isinstance(value, Mapping) and 'sentence' in value
  }


def sentence(statement: Mapping[str, Any]) -> str:
  """Returns the guarantee of a statement in one plain sentence.

  Args:
    statement: From `build`; or a nested one, with the entries on rounds, delta
      and simulation of the whole.
  """
  number = statement['rounds']
  rounds = f'{number} rounds' if number != 1 else '1 round'
  if statement['unit'] is None:
    return f'No differential privacy: epsilon is infinite ({rounds}, no noise).'
  again = statement['rounds'] - statement['rounds_by_noise_keys'].get('1', 0)
  if again:
    rounds += f' ({again} of them released again under another noise key)'
  noise = ' and '.join(
    f'noise multiplier {release["noise_multiplier"]:g} and clip norm '
    f'{release["clip_norm"]:g} on each {release["name"].replace("_", " ")}'
    for release in statement['releases']
  )
  settings = f'{rounds}, {statement["sampler"]}, {noise}'
  epsilon = float(statement['epsilon'])
  if math.isinf(epsilon):
    return f'No differential privacy: epsilon is infinite ({settings}).'
  scope = accounting.Scope(statement['scope'])
  _, neighbours = wording.neighbours(
    scope, config.Relation(statement['relation'])
  )
  claim = (
    f'{wording.LEVELS[scope]} with epsilon {shown(epsilon)} and delta '
    f'{statement["delta"]:g} under {neighbours}'
  )
  if statement['clients'] is not None:
    claim += f', {_whose(statement)}'
  accountant = statement['headline']['accountant'].upper()
  text = f'{_caveats(statement)}{claim}: {settings} (by {accountant}).'
  return text[0].upper() + text[1:]


def shown(epsilon: float) -> str:
  """Returns epsilon for people: three digits, rounded up and never down.

  >>> shown(1.7021), shown(14.0), shown(1200.2), shown(float('inf'))
  ('1.71', '14', '1201', 'inf')
  """
  if not math.isfinite(epsilon):
    return str(epsilon)
  if epsilon >= 100:
    return str(math.ceil(epsilon))
  with decimal.localcontext() as context:
    context.prec = 3
    context.rounding = decimal.ROUND_CEILING
    return f'{(+decimal.Decimal(epsilon)).normalize():f}'


def differences(
  claimed: Mapping[str, Any], derived: Mapping[str, Any]
) -> list[str]:
  """Returns one line per entry in which two statements differ.

  Numbers agree if they do to nine digits: other processors round differently.
  """
  found = []
  for name in sorted(claimed.keys() | derived.keys()):
    said, is_ = claimed.get(name), derived.get(name)
    if not _agree(said, is_):
      found.append(f'{name}: privacy.json says {said!r}, derived is {is_!r}')
  return found


def _agree(one: Any, other: Any) -> bool:
  if isinstance(one, Mapping) and isinstance(other, Mapping):
    return one.keys() == other.keys() and all(
      _agree(one[name], other[name]) for name in one
    )
  if isinstance(one, list) and isinstance(other, list):
    return len(one) == len(other) and all(map(_agree, one, other))
  if isinstance(one, float) and isinstance(other, float):
    return math.isclose(one, other, rel_tol=1e-9)
  return one == other


def _priced(
  guaranteed: accounting.Guarantee,
  released: ledger.Releases,
  delta: float | None,
  accountants_used: tuple[str, ...],
) -> dict[str, Any]:
  """Returns the entries that one guarantee decides."""
  prices = accounting.prices(
    guaranteed, released, delta=delta, accountants_used=accountants_used
  )
  neighbours, _ = wording.neighbours(guaranteed.scope, guaranteed.relation)
  return {
    'scope': str(guaranteed.scope),
    'unit': guaranteed.unit,
    'protected_from': wording.OBSERVERS[guaranteed.scope],
    'relation': guaranteed.relation and str(guaranteed.relation),
    'neighbours': neighbours,
    'epsilon': prices[0].epsilon,
    'headline': _headline(guaranteed, prices),
    'epsilon_pld': _best(prices, 'pld'),
    'epsilon_rdp': _best(prices, 'rdp'),
    'bounds': _bounds(guaranteed, released, prices),
    'sampler': guaranteed.sampler,
    'releases': [
      {
        'name': release.name,
        'clip_norm': release.clip_norm,
        'noise_multiplier': release.noise_multiplier,
      }
      for release in guaranteed.releases
    ],
    'combined_noise_multiplier': (
      bounds.combined_noise_multiplier(guaranteed.releases)
      if guaranteed.releases
      else None
    ),
    'clients': _clients(guaranteed, released, delta, accountants_used),
    'extrapolated': guaranteed.extrapolated,
  }


def _clients(
  guaranteed: accounting.Guarantee,
  released: ledger.Releases,
  delta: float | None,
  accountants_used: tuple[str, ...],
) -> dict[str, Any] | None:
  """Returns how often clients took part, and what that costs them.

  Epsilon grows with participations, so its quantiles are those of quantiles.
  """
  if guaranteed.clients is None:
    return None
  counts = guaranteed.clients.participations.of_clients(released)
  quantiles = [int(np.quantile(counts, q, method='higher')) for q in QUANTILES]
  epsilons = {
    count: accounting.client_epsilon(
      guaranteed, count, delta=delta, accountants_used=accountants_used
    )
    for count in set(quantiles)
  }

  def entry(count: int) -> dict[str, Any]:
    return {'participations': count, 'epsilon': epsilons[count]}

  return {
    'number': len(counts),
    'maximum': entry(quantiles[-1]),
    'median': entry(quantiles[QUANTILES.index(0.5)]),
    'quantiles': {
      f'{q:g}': entry(count)
      for q, count in zip(QUANTILES, quantiles, strict=True)
    },
  }


def _sampling(terms: config.Terms) -> dict[str, Any]:
  privacy, cohort = terms.privacy, terms.cohort
  return {
    'sampling': str(cohort.sampling),
    'population': privacy.population,
    'clients_per_round': cohort.clients_per_round,
    'noise_cohort_size': privacy.noise_cohort_size,
    'epochs': terms.client.epochs,
    'batch_size': terms.client.batch_size,
    'sampling_rate': terms.client.sampling_rate,
    'batches': terms.algorithm.batches and str(terms.algorithm.batches),
  }


def _caveats(statement: Mapping[str, Any]) -> str:
  words = ''
  if statement['extrapolated']:
    words += 'extrapolated to larger cohorts, and not the privacy of this run: '
  if statement['simulation'] is not None:
    words += 'in a reproducible simulation, '
  return words


def _whose(statement: Mapping[str, Any]) -> str:
  clients = statement['clients']
  most, median = clients['maximum'], clients['median']
  return (
    f'for the client that took part most often, {most["participations"]} times '
    f'(the median client: {median["participations"]} times, epsilon '
    f'{shown(float(median["epsilon"]))})'
  )


def _headline(
  guaranteed: accounting.Guarantee, prices: list[accounting.Price]
) -> dict[str, Any]:
  best = prices[0]
  bound = next(b for b in guaranteed.bounds if b.name == best.bound)
  return {
    'accountant': best.accountant,
    'bound': best.bound,
    'why': f'the smallest of {len(prices)} valid upper bounds: {bound.why}',
  }


def _best(prices: list[accounting.Price], accountant: str) -> float | None:
  found = [p.epsilon for p in prices if p.accountant == accountant]
  return min(found, default=None)


def _bounds(
  guaranteed: accounting.Guarantee,
  released: ledger.Releases,
  prices: list[accounting.Price],
) -> list[dict[str, Any]]:
  """Returns each bound with its event: all that a sceptic needs to price it."""
  return [
    {
      'name': bound.name,
      'why': bound.why,
      'priced_under': str(bound.relation),
      'event': str(bound.event(released)),
      'epsilon': {
        price.accountant: price.epsilon
        for price in prices
        if price.bound == bound.name
      },
    }
    for bound in guaranteed.bounds
  ]


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _plain(child) for name, child in value.items()}
  if isinstance(value, list):
    return [_plain(child) for child in value]
  if isinstance(value, float) and math.isinf(value):
    return 'inf'
  return value
