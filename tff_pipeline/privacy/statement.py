"""What a run guarantees, as JSON and as one sentence.

A statement is a function of config and ledger alone, so anyone who holds a run
directory can derive it again: `python -m experiments.epsilon --run_dir=RUN`.
"""

from collections.abc import Iterable, Mapping
import decimal
from importlib import metadata
import math
from typing import Any

from tff_pipeline import config
from tff_pipeline.privacy import accounting

FORMAT = 1

_RELATIONS = {
  config.Relation.ADD_OR_REMOVE_ONE: (
    'all data of one client is added or removed'
  ),
  config.Relation.REPLACE_ONE: (
    'all data of one client is replaced by other data, the number of clients '
    'being public'
  ),
  config.Relation.ZERO_OUT: (
    'the update of one client is replaced by zero, the number of clients being '
    'public'
  ),
}
_SHORT_RELATIONS = {
  config.Relation.ADD_OR_REMOVE_ONE: 'adding or removing one client',
  config.Relation.REPLACE_ONE: 'replacing one client',
  config.Relation.ZERO_OUT: "zeroing one client's update",
}
_ASSUMPTIONS = (
  'Cohorts and noise key stay secret. The seed in config.json reveals the '
  'cohorts: fine for a simulation, not for a deployment.',
  'The noise is floating-point output of a non-cryptographic generator.',
  'A round replayed under the same noise key is computed in the same way, so '
  'that it releases the same values again.',
)
_SIMULATION = (
  'The noise key comes from --privacy.noise_seed: whoever knows the seed can '
  'subtract the noise. A reproducible simulation, not a private release.'
)
_NOT_COVERED = (
  'columns named unnoised_*: training metrics, realised cohort size, shares of '
  'clipped and of rejected updates, signal to noise, per-client distributions',
  'timings and other side channels',
  'evaluation data, and metrics on it',
  'the choice of hyper-parameters by looking at the data',
)


def build(
  privacy: config.Privacy,
  cohort: config.Cohort,
  *,
  counts: accounting.Counts,
  replays: Mapping[int, int] | None = None,
  solved: Mapping[str, Any] | None = None,
  accountants_used: Iterable[str] = tuple(accounting.ACCOUNTANTS),
) -> dict[str, Any]:
  """Returns the statement, ready for JSON (infinity is the string 'inf').

  Args:
    privacy: The mechanism, with the solved leaf filled in.
    cohort: The sampling, likewise.
    counts: What was released: `Ledger.release_counts`, or planned rounds.
    replays: Round -> attempts beyond the first: `Ledger.replays`.
    solved: What `--privacy.target_epsilon` was solved for, if it was.
    accountants_used: Names from `accounting.ACCOUNTANTS`: all, for a run.
  """
  counts = accounting.round_counts(counts)
  guaranteed = accounting.guarantee(privacy, cohort)
  prices = accounting.prices(
    guaranteed, counts, delta=privacy.delta, accountants_used=accountants_used
  )
  statement = {
    'format': FORMAT,
    'mechanism': str(privacy.mechanism),
    'unit': guaranteed.unit,
    'relation': guaranteed.relation and str(guaranteed.relation),
    'neighbours': guaranteed.relation and _RELATIONS[guaranteed.relation],
    'epsilon': prices[0].epsilon,
    'delta': privacy.delta,
    'headline': _headline(guaranteed, prices),
    'epsilon_pld': _best(prices, 'pld'),
    'epsilon_rdp': _best(prices, 'rdp'),
    'bounds': _bounds(guaranteed, counts, prices),
    'accounting': f'dp-accounting {metadata.version("dp-accounting")}',
    'sampling': str(cohort.sampling),
    'sampler': guaranteed.sampler,
    'population': privacy.population,
    'clients_per_round': cohort.clients_per_round,
    'releases': [
      {
        'name': release.name,
        'clip_norm': release.clip_norm,
        'noise_multiplier': release.noise_multiplier,
      }
      for release in guaranteed.releases
    ],
    'rounds': sum(counts.values()),
    'rounds_by_noise_keys': {str(k): n for k, n in counts.items()},
    'attempts_replayed': {str(r): n for r, n in (replays or {}).items()},
    'solved': dict(solved) if solved else None,
    'extrapolated': False,
    'simulation': None if privacy.noise_seed is None else _SIMULATION,
    'assumptions': list(_ASSUMPTIONS) if guaranteed.unit else [],
    'not_covered': list(_NOT_COVERED) if guaranteed.unit else ['everything'],
  }
  statement['sentence'] = sentence(statement)
  return _plain(statement)


def sentence(statement: Mapping[str, Any]) -> str:
  """Returns the guarantee of a statement in one plain sentence."""
  rounds = f'{statement["rounds"]} rounds'
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
  relation = _SHORT_RELATIONS[config.Relation(statement['relation'])]
  claim = (
    f'{statement["unit"]}-level differential privacy with epsilon '
    f'{shown(epsilon)} and delta {statement["delta"]:g} under {relation}'
  )
  if statement['simulation'] is not None:
    claim = f'in a reproducible simulation, {claim}'
  accountant = statement['headline']['accountant'].upper()
  return f'{claim[0].upper()}{claim[1:]}: {settings} (by {accountant}).'


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
  counts: Mapping[int, int],
  prices: list[accounting.Price],
) -> list[dict[str, Any]]:
  """Returns each bound with its event: all that a sceptic needs to price it."""
  return [
    {
      'name': bound.name,
      'why': bound.why,
      'priced_under': str(bound.relation),
      'event': str(bound.event(counts)),
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
