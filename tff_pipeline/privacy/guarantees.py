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

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import client_guarantees
from tff_pipeline.privacy import wording

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
    return client_guarantees.examples(
      terms,
      noise_multiplier=privacy.noise_multiplier,
      clip_norm=privacy.clip_norm,
      relation=privacy.relation or config.Relation.ZERO_OUT,
    )
  if privacy.mechanism is config.Mechanism.LOCAL:
    return client_guarantees.local(terms)
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
    sampler=wording.sampler(terms.cohort, everybody='all clients'),
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
    sampler=wording.sampler(cohort, everybody=f'{privacy.population} clients'),
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
    | client_guarantees.example_level(terms),
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
    sampler=wording.sampler(cohort, everybody='the clients in the data'),
    releases=released,
    bounds=(bounds.unamplified(relation, noise_multiplier=noise),),
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
    sampler=wording.sampler(batches, everybody=everybody, groups='batches')
    + f', {wording.number(steps, "step")} a round',
    releases=(
      bounds.step_gradient(privacy.clip_norm, privacy.noise_multiplier),
    ),
    bounds=bounds.sampled(
      relation,
      batches,
      noise_multiplier=privacy.noise_multiplier,
      population=privacy.population,
      repeat=steps,
      words=bounds.EXAMPLES,
    ),
  )
