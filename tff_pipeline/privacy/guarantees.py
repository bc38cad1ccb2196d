"""Which mechanism guarantees what.

`build` turns the terms of a run into one frozen record, from which
`accounting` derives epsilon.

  mechanism          one of     relation (default first)   bounds
  -----------------  ---------  -------------------------  -------------------
  none                                                     infinite
  gaussian           clients    as the table in `bounds`   of the cohorts, z
  gaussian_adaptive  clients    the same                   of the cohorts, sum
                                                           and count: z
  local              clients    replace_one                its participations
                                                           x Gaussian(z/2)
  dp_sgd             examples   zero_out, replace_one      its client's epochs x
                     of a                                  participations x
                     client                                Gaussian(z or z/2)
  dp_sgd,            the same   zero_out                   its client's steps x
  sampling_rate                                            participations x
                                                           Poisson(q, Gaussian(
                                                           z))
  dp_sgd,            examples   as the table in `bounds`,  of the batches, z
  centralized                   by algorithm.batches
"""

from collections.abc import Sequence
import dataclasses
import math

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import participations

Guarantee = accounting.Guarantee
Scope = accounting.Scope


def build(terms: config.Terms) -> Guarantee:
  """Returns what a run on these terms guarantees.

  Raises:
    UsageError: If the relation cannot be priced for this mechanism and
      sampling, or the leaves do not fit each other.
    ValueError: If a leaf that `calibration.solve` has to find is still unset.
  """
  privacy = terms.privacy
  if privacy.mechanism is config.Mechanism.NONE:
    return _none(terms)
  if privacy.noise_multiplier is None:
    raise ValueError('privacy.noise_multiplier is not solved yet')
  sampled = terms.cohort.sampling is not config.Sampling.FULL
  if sampled and terms.cohort.clients_per_round is None:
    raise ValueError('cohort.clients_per_round is not solved yet')
  if privacy.mechanism is config.Mechanism.DP_SGD:
    if terms.algorithm.name is config.AlgorithmName.CENTRALIZED:
      return _pooled_examples(terms)
    return _client_examples(
      terms,
      noise_multiplier=privacy.noise_multiplier,
      clip_norm=privacy.clip_norm,
      relation=privacy.relation or config.Relation.ZERO_OUT,
    )
  if privacy.mechanism is config.Mechanism.LOCAL:
    return _local(terms)
  return _central(terms)


def steps_per_round(client: config.Client, *, population: int) -> int:
  """Returns how many batches a round of centralized training draws.

  As many as `client.epochs` passes over the data have, rounded: each batch is
  drawn from all examples. What trains must do so many, for they are priced.

  Args:
    client: Epochs and batch size.
    population: Number of training examples.

  >>> steps_per_round(config.Client(epochs=3, batch_size=60), population=1437)
  72
  """
  return max(1, round(client.epochs * population / client.batch_size))


def check_example_delta(delta: float, client_sizes: Sequence[int]) -> None:
  """Refuses a delta at which the examples of a client are not protected.

  To publish one example of n, chosen at random, is (0, 1/n)-private: a
  guarantee for the examples of a client means something below 1/n only. One
  delta serves all clients, so the largest of them decides.

  Args:
    delta: Of an example-level guarantee.
    client_sizes: Number of examples of each client.

  Raises:
    UsageError: If delta is not below 1/n of the largest client.
  """
  largest = max(client_sizes, default=0)
  if largest and delta >= 1 / largest:
    raise validate.error(
      'privacy.delta',
      expected=f'below 1/{largest} = {1 / largest:.3g}: the largest client has '
      f'{largest} examples',
      found=delta,
      remedy='Publishing one whole example would meet a larger delta',
    )


def _none(terms: config.Terms) -> Guarantee:
  return Guarantee(
    scope=Scope.NONE,
    relation=None,
    sampler=_sampler(terms.cohort, everybody='all clients'),
    releases=(),
    bounds=(bounds.not_private(),),
  )


def _central(terms: config.Terms) -> Guarantee:
  """The server clips, sums and noises: `gaussian`, `gaussian_adaptive`."""
  privacy = terms.privacy
  cohort = terms.cohort
  extrapolated = privacy.noise_cohort_size is not None
  if extrapolated:
    cohort = dataclasses.replace(
      cohort, clients_per_round=privacy.noise_cohort_size
    )
  relation = privacy.relation or bounds.DEFAULT_RELATION[cohort.sampling]
  released = _central_releases(privacy)
  return Guarantee(
    scope=Scope.USER,
    relation=relation,
    sampler=_sampler(cohort, everybody=f'{privacy.population} clients'),
    releases=released,
    bounds=bounds.sampled(
      relation,
      cohort,
      noise_multiplier=bounds.combined_noise_multiplier(released),
      population=privacy.population,
    ),
    extrapolated=extrapolated,
    also=(
      {'as_run': _as_run(terms, relation, released)} if extrapolated else {}
    )
    | _example_level(terms),
  )


def _central_releases(privacy: config.Privacy) -> tuple[bounds.Release, ...]:
  """Returns what leaves a round with noise.

  Adaptive clipping (Andrew et al. 2021, theorem 1) also releases how many
  updates were not clipped. An indicator counts as plus or minus a half, so one
  client moves the count by a half: noise multiplier 2 sigma_b. The sum gets
  (z^-2 - (2 sigma_b)^-2)^-1/2, so that both together have z.
  """
  noise = privacy.noise_multiplier

  def update(noise_multiplier: float) -> bounds.Release:
    return bounds.Release(
      name='model_update',
      clip_norm=privacy.clip_norm,
      noise_multiplier=noise_multiplier,
    )

  if privacy.mechanism is config.Mechanism.GAUSSIAN:
    return (update(noise),)
  count_noise = 2 * privacy.clipped_count_stddev
  if noise >= count_noise:
    raise validate.error(
      'privacy.clipped_count_stddev',
      expected=f'above noise_multiplier / 2 = {noise / 2:g}: the count spends '
      'a part of the budget, and this noise would spend all of it',
      found=privacy.clipped_count_stddev,
    )
  left = bounds.remaining_noise_multiplier(noise, other=count_noise)
  count = bounds.Release(
    name='unclipped_count', clip_norm=0.5, noise_multiplier=count_noise
  )
  return update(left), count


def _as_run(
  terms: config.Terms,
  relation: config.Relation,
  extrapolated: tuple[bounds.Release, ...],
) -> Guarantee:
  """Returns what an extrapolated run itself guarantees.

  Its mean has the noise of the larger cohort's mean, so its sum has less noise.
  The config does not say how many clients there really are, so it is priced
  without amplification, which holds for any number.
  """
  privacy, cohort = terms.privacy, terms.cohort
  scale = cohort.clients_per_round / privacy.noise_cohort_size
  released = tuple(
    dataclasses.replace(
      release, noise_multiplier=scale * release.noise_multiplier
    )
    for release in extrapolated
  )
  noise = bounds.combined_noise_multiplier(released)
  return Guarantee(
    scope=Scope.USER,
    relation=relation,
    sampler=_sampler(cohort, everybody='the clients in the data'),
    releases=released,
    bounds=(bounds.unamplified(relation, noise_multiplier=noise),),
  )


def _local(terms: config.Terms) -> Guarantee:
  """Each client clips and noises its own update."""
  privacy, cohort = terms.privacy, terms.cohort
  relation = privacy.relation or config.Relation.REPLACE_ONE
  if relation is not config.Relation.REPLACE_ONE:
    raise bounds.refuse(
      relation,
      expected=f'{config.Relation.REPLACE_ONE}: local privacy compares any two '
      'data sets of one client, whose reports are seen',
      remedy='Leave it out',
    )
  release = bounds.Release(
    name='client_update',
    clip_norm=privacy.clip_norm,
    noise_multiplier=privacy.noise_multiplier,
  )
  clients = _clients(
    terms,
    relation,
    noise_multiplier=privacy.noise_multiplier,
    repeat=1,
  )
  own = _of_most(
    clients,
    why='each report of a client has noise of its own; between two of its data '
    'sets the update moves by up to twice the clip norm; nobody hides who '
    'reports',
  )
  central = {}
  if cohort.sampling is not config.Sampling.POISSON:
    central = {'central': _sum_of_local(terms, release)}
  return Guarantee(
    scope=Scope.LOCAL,
    relation=relation,
    sampler=_sampler(cohort, everybody=f'{privacy.population} clients'),
    releases=(release,),
    bounds=(own,),
    clients=clients,
    also=central | _example_level(terms),
  )


def _sum_of_local(terms: config.Terms, report: bounds.Release) -> Guarantee:
  """Returns what holds against an observer of nothing but the sums.

  A sum of m reports has m independent noises: z sqrt(m) on the sum, whoever
  they come from, if m is the same in neighbouring runs. So the bounds are those
  of the Gaussian mechanism on cohorts of m, unamplified included (that one even
  if the cohorts were known). Under Poisson sampling the noise depends on who
  takes part, so there is none.
  """
  privacy, cohort = terms.privacy, terms.cohort
  size = cohort.clients_per_round or privacy.population
  release = dataclasses.replace(
    report,
    name='sum_of_client_updates',
    noise_multiplier=report.noise_multiplier * math.sqrt(size),
  )
  return Guarantee(
    scope=Scope.SUM_OF_LOCAL,
    relation=config.Relation.REPLACE_ONE,
    sampler=_sampler(cohort, everybody=f'{privacy.population} clients'),
    releases=(release,),
    bounds=bounds.sampled(
      config.Relation.REPLACE_ONE,
      cohort,
      noise_multiplier=release.noise_multiplier,
      population=privacy.population,
    ),
  )


def _example_level(terms: config.Terms) -> dict[str, Guarantee]:
  """Returns the guarantee of DP-SGD beneath a user-level mechanism."""
  privacy = terms.privacy
  if privacy.example_noise_multiplier is None:
    return {}
  return {
    'example_level': _client_examples(
      terms,
      noise_multiplier=privacy.example_noise_multiplier,
      clip_norm=privacy.example_clip_norm,
      relation=config.Relation.ZERO_OUT,
    )
  }


def _client_examples(
  terms: config.Terms,
  *,
  noise_multiplier: float,
  clip_norm: float,
  relation: config.Relation,
) -> Guarantee:
  """Each client noises the gradients of its own examples."""
  if relation is config.Relation.ADD_OR_REMOVE_ONE:
    raise bounds.refuse(
      relation,
      expected='zero_out or replace_one: one example more or less may change '
      'the number of steps of its client, which is public',
      remedy='Leave it out (zero_out), or choose replace_one',
    )
  client = terms.client
  sampled = client.sampling_rate is not None
  if sampled and relation is not config.Relation.ZERO_OUT:
    raise bounds.refuse(
      relation,
      expected=f'{config.Relation.ZERO_OUT} with --client.sampling_rate: what '
      'its Poisson batches are priced under',
      remedy='Leave it out, or set --client.batch_size',
    )
  clients = _clients(
    terms,
    relation,
    noise_multiplier=noise_multiplier,
    repeat=client.sampled_steps if sampled else client.epochs,
    sampling_rate=client.sampling_rate,
  )
  own = _of_most(
    clients,
    why='each step of each participation of its client draws each example by '
    'its own coin, which hides whether it did; a zeroed gradient adds what an '
    'absent example adds, nothing'
    if sampled
    else 'each example is in exactly one batch of each epoch of each '
    'participation of its client; batches are shuffled, not sampled, so '
    'nothing is amplified',
  )
  locally = (
    f'{_number(client.sampled_steps, "local step")} a round on Poisson batches '
    f'of rate {client.sampling_rate:g}'
    if sampled
    else f'{_number(client.epochs, "local epoch")} a round'
  )
  return Guarantee(
    scope=Scope.CLIENT_EXAMPLE,
    relation=relation,
    sampler=_sampler(
      terms.cohort, everybody=f'{terms.privacy.population} clients'
    )
    + f', {locally}',
    releases=(_step_gradient(clip_norm, noise_multiplier),),
    bounds=(own,),
    clients=clients,
  )


def _pooled_examples(terms: config.Terms) -> Guarantee:
  """Centralized DP-SGD: a batch is to examples what a cohort is to clients."""
  privacy, client = terms.privacy, terms.client
  if client.batch_size > privacy.population:
    raise validate.error(
      'client.batch_size',
      expected=f'at most --privacy.population={privacy.population}',
      found=client.batch_size,
    )
  batches = config.Cohort(
    sampling=config.Sampling(terms.algorithm.batches),
    clients_per_round=client.batch_size,
  )
  relation = privacy.relation or bounds.DEFAULT_RELATION[batches.sampling]
  steps = steps_per_round(client, population=privacy.population)
  everybody = f'{privacy.population} examples'
  return Guarantee(
    scope=Scope.POOLED_EXAMPLE,
    relation=relation,
    sampler=_sampler(batches, everybody=everybody, groups='batches')
    + f', {_number(steps, "step")} a round',
    releases=(_step_gradient(privacy.clip_norm, privacy.noise_multiplier),),
    bounds=bounds.sampled(
      relation,
      batches,
      noise_multiplier=privacy.noise_multiplier,
      population=privacy.population,
      repeat=steps,
      words=bounds.EXAMPLES,
    ),
  )


def _step_gradient(clip_norm: float, noise_multiplier: float) -> bounds.Release:
  return bounds.Release(
    name='step_gradient',
    clip_norm=clip_norm,
    noise_multiplier=noise_multiplier,
  )


def _clients(
  terms: config.Terms,
  relation: config.Relation,
  *,
  noise_multiplier: float,
  repeat: int,
  sampling_rate: float | None = None,
) -> accounting.Clients:
  if terms.privacy.noise_cohort_size is not None:
    raise validate.error(
      'privacy.noise_cohort_size',
      expected='no value with the example_ leaves: what an example releases '
      'depends on who takes part, and nobody does in an extrapolated cohort',
      found=terms.privacy.noise_cohort_size,
    )
  return accounting.Clients(
    participations=participations.Participations(
      terms.cohort, population=terms.privacy.population, seed=terms.seed
    ),
    event=bounds.own_account(
      relation,
      noise_multiplier=noise_multiplier,
      repeat=repeat,
      sampling_rate=sampling_rate,
    ),
    relation=relation
    if sampling_rate is None
    else config.Relation.ADD_OR_REMOVE_ONE,
  )


def _of_most(clients: accounting.Clients, *, why: str) -> bounds.Bound:
  """Returns the bound of the client that took part most often."""
  return bounds.Bound(
    name='per_client',
    why=why,
    relation=clients.relation,
    event=lambda released: clients.event(clients.participations.most(released)),
  )


def _sampler(
  cohort: config.Cohort, *, everybody: str, groups: str = 'cohorts'
) -> str:
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


def _number(count: int, noun: str) -> str:
  return f'{count} {noun}' + ('' if count == 1 else 's')
