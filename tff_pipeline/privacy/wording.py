"""The words of a privacy statement: who is protected, assuming what."""

from tff_pipeline import config
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import noise_key

Scope = accounting.Scope
Relation = config.Relation
Mechanism = config.Mechanism

LEVELS = {
  Scope.USER: 'user-level differential privacy',
  Scope.LOCAL: 'user-level local differential privacy',
  Scope.SUM_OF_LOCAL: (
    'user-level differential privacy against an observer of the sums only'
  ),
  Scope.CLIENT_EXAMPLE: 'example-level differential privacy',
  Scope.POOLED_EXAMPLE: 'example-level differential privacy',
}

OBSERVERS = {
  Scope.NONE: None,
  Scope.USER: 'whoever sees the models of all rounds; the server is trusted',
  Scope.LOCAL: 'everybody, the server included',
  Scope.SUM_OF_LOCAL: (
    'whoever sees the models of all rounds; the server is trusted to show '
    'nothing but sums, and the other clients to add their noise'
  ),
  Scope.CLIENT_EXAMPLE: 'everybody but its client, the server included',
  Scope.POOLED_EXAMPLE: (
    'whoever sees the models of all steps; the trainer is trusted'
  ),
}

# (scope, relation) -> what makes two data sets neighbours, long and short.
_NEIGHBOURS = {
  (Scope.USER, Relation.ADD_OR_REMOVE_ONE): (
    'all data of one client is added or removed',
    'adding or removing one client',
  ),
  (Scope.USER, Relation.REPLACE_ONE): (
    'all data of one client is replaced by other data, the number of clients '
    'being public',
    'replacing one client',
  ),
  (Scope.USER, Relation.ZERO_OUT): (
    'all that one client adds to the sums (its update, its clip indicator) is '
    'replaced by zero, the number of clients being public',
    "zeroing one client's update",
  ),
  (Scope.LOCAL, Relation.REPLACE_ONE): (
    'all data of one client is replaced by any other data',
    "replacing one client's data",
  ),
  (Scope.SUM_OF_LOCAL, Relation.REPLACE_ONE): (
    'all data of one client is replaced by other data, the number of clients '
    'being public',
    'replacing one client',
  ),
  (Scope.CLIENT_EXAMPLE, Relation.ZERO_OUT): (
    'the gradients of one example of one client are replaced by zero; how many '
    'examples a client has is public',
    "zeroing one example's gradients",
  ),
  (Scope.CLIENT_EXAMPLE, Relation.REPLACE_ONE): (
    'one example of one client is replaced by another; how many examples a '
    'client has is public',
    'replacing one example',
  ),
  (Scope.POOLED_EXAMPLE, Relation.ADD_OR_REMOVE_ONE): (
    'one example is added or removed',
    'adding or removing one example',
  ),
  (Scope.POOLED_EXAMPLE, Relation.REPLACE_ONE): (
    'one example is replaced by another, the number of examples being public',
    'replacing one example',
  ),
  (Scope.POOLED_EXAMPLE, Relation.ZERO_OUT): (
    'the gradients of one example are replaced by zero, the number of examples '
    'being public',
    "zeroing one example's gradients",
  ),
}

SIMULATION = (
  'The noise key comes from --privacy.noise_seed: whoever knows the seed can '
  'subtract the noise. A reproducible simulation, not a private release.'
)

_SECRET_COHORTS = (
  'Cohorts and noise key stay secret. The seed in config.json reveals the '
  'cohorts: fine for a simulation, not for a deployment.'
)
_SECRET_BATCHES = (
  'Batches and noise key stay secret. The seed in config.json reveals the '
  'batches: fine for a simulation, not for a deployment.'
)
_SECRET_KEY = (
  'The noise key stays secret; in a deployment, each client keeps one of its '
  'own. Cohorts may be known: nothing is amplified by them.'
)
_GENERATOR = (
  'The noise is floating-point output of a non-cryptographic generator.'
)
_REPLAYS = (
  'A round replayed under the same noise key is computed in the same way, so '
  'that it releases the same values again.'
)
_UNKEYED = (
  "The noise is of TensorFlow's own generator: a round that runs again "
  'releases other values, and is counted as released again.'
)
_ADAPTIVE = (
  'The clip norm follows the noised count alone, so its course costs nothing '
  'more; clip_norm is that of the first round.'
)
_EXAMPLES = (
  'An example has one owner, and is in exactly one batch of each epoch; '
  'numbers of examples, and with them of steps, are public.'
)
_SAMPLED_EXAMPLES = (
  'An example has one owner. The noise key decides the batches too: who is in '
  'one stays as secret as the noise, and so does how many are; numbers of '
  'examples are public.'
)
_PARTICIPATIONS = (
  'Epsilon is that of the client that took part most often in the cohorts as '
  'drawn; other clients have less. Who takes part does not depend on the data.'
)
_SUM_OF_LOCAL = (
  'central: the sums show nothing of single reports, and no client withholds '
  'or reveals its noise. Cohorts stay secret where sampling amplifies.'
)
_EXTRAPOLATED = (
  'The stated epsilon is that of a run with cohorts of noise_cohort_size from '
  'population clients and the same noise on the mean. This run has smaller '
  'cohorts; as_run is its own guarantee, for any number of clients.'
)

_NOT_COVERED = (
  'columns named unnoised_*: training metrics, realised cohort size, shares of '
  'clipped and of rejected updates, signal to noise, per-client distributions',
  'timings and other side channels',
  'evaluation data, and metrics on it',
  'the choice of hyper-parameters by looking at the data',
)
_LOCAL_LAYERS = (
  'layers that stay on the clients (algorithm.local_layers), and predictions '
  'made with them: they are neither clipped nor noised. The released model has '
  'the shared layers alone'
)
_PUBLIC_POPULATION = (
  'the population is a public constant, the same for neighbours: sampling '
  'rate, denominator and number of steps follow it, not who is there'
)
_NO_CLIENTS = (
  'clients as a whole: the privacy of one example is not that of all the data '
  'of its owner'
)


def neighbours(
  scope: accounting.Scope, relation: config.Relation | None
) -> tuple[str | None, str | None]:
  """Returns which data sets are neighbours, in a clause and in a few words."""
  return _NEIGHBOURS.get((scope, relation), (None, None))


def assumptions(
  terms: config.Terms, guaranteed: accounting.Guarantee
) -> list[str]:
  """Returns what must be true for the guarantee to hold."""
  scope = guaranteed.scope
  if scope is Scope.NONE:
    return []
  secrets = {
    Scope.USER: _SECRET_COHORTS,
    Scope.POOLED_EXAMPLE: _SECRET_BATCHES,
  }
  found = [
    secrets.get(scope, _SECRET_KEY),
    _GENERATOR,
    _REPLAYS if noise_key.is_keyed(terms.algorithm.batches) else _UNKEYED,
  ]
  if guaranteed.relation is Relation.ADD_OR_REMOVE_ONE:
    found.append(_PUBLIC_POPULATION)
  if terms.privacy.mechanism is Mechanism.GAUSSIAN_ADAPTIVE:
    found.append(_ADAPTIVE)
  if guaranteed.extrapolated:
    found.append(_EXTRAPOLATED)
  if guaranteed.clients is not None:
    found.append(_PARTICIPATIONS)
  if scope is Scope.CLIENT_EXAMPLE or 'example_level' in guaranteed.also:
    sampled = terms.client.sampling_rate is not None
    found.append(_SAMPLED_EXAMPLES if sampled else _EXAMPLES)
  if 'central' in guaranteed.also:
    found.append(_SUM_OF_LOCAL)
  return found


def not_covered(
  terms: config.Terms, guaranteed: accounting.Guarantee
) -> list[str]:
  """Returns what the guarantee does not speak of."""
  if guaranteed.scope is Scope.NONE:
    return ['everything']
  if guaranteed.unit == 'example':
    return [*_NOT_COVERED, _NO_CLIENTS]
  if terms.algorithm.name in config.LOCAL_LAYERS:
    return [*_NOT_COVERED, _LOCAL_LAYERS]
  return list(_NOT_COVERED)


def sampler(
  cohort: config.Cohort, *, everybody: str, groups: str = 'cohorts'
) -> str:
  """Returns how cohorts, or batches, are drawn from `everybody`."""
  size = cohort.clients_per_round
  sentences = {
    config.Sampling.POISSON: (
      f'Poisson {groups} ({everybody}, each by its own coin; {size} expected)'
    ),
    config.Sampling.FIXED_SIZE: (
      f'{groups} of exactly {size} of {everybody}, without replacement'
    ),
    config.Sampling.FULL: f'full participation ({everybody})',
  }
  return sentences[cohort.sampling]


def number(count: int, noun: str) -> str:
  """Returns a count with its noun.

  >>> number(1, 'step'), number(3, 'step')
  ('1 step', '3 steps')
  """
  return f'{count} {noun}' + ('' if count == 1 else 's')
