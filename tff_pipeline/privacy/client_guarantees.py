"""What a client's own releases guarantee: reports, and steps on its examples.

A cohort amplifies nothing here, since whoever sees the releases sees who takes
part; an observer of nothing but sums is the one exception. Each client is
priced by its own participations, as counted in the rounds of the ledger; the
one that took part most often is the headline.
"""

import dataclasses
import math

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import participations
from tff_pipeline.privacy import wording

Guarantee = accounting.Guarantee
Scope = accounting.Scope


def local(terms: config.Terms) -> Guarantee:
  """Returns the guarantee where each client clips and noises its own update.

  Raises:
    UsageError: If the relation is not replace_one.
  """
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
    sampler=wording.sampler(cohort, everybody=f'{privacy.population} clients'),
    releases=(release,),
    bounds=(own,),
    clients=clients,
    also=central | example_level(terms),
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
    sampler=wording.sampler(cohort, everybody=f'{privacy.population} clients'),
    releases=(release,),
    bounds=bounds.sampled(
      config.Relation.REPLACE_ONE,
      cohort,
      noise_multiplier=release.noise_multiplier,
      population=privacy.population,
    ),
  )


def example_level(terms: config.Terms) -> dict[str, Guarantee]:
  """Returns the guarantee of DP-SGD beneath a user-level mechanism."""
  privacy = terms.privacy
  if privacy.example_noise_multiplier is None:
    return {}
  return {
    'example_level': examples(
      terms,
      noise_multiplier=privacy.example_noise_multiplier,
      clip_norm=privacy.example_clip_norm,
      relation=config.Relation.ZERO_OUT,
    )
  }


def examples(
  terms: config.Terms,
  *,
  noise_multiplier: float,
  clip_norm: float,
  relation: config.Relation,
) -> Guarantee:
  """Returns the guarantee where clients noise gradients of their examples.

  Args:
    terms: Whose cohorts, local epochs and sampling rate decide.
    noise_multiplier: Noise stddev on a batch's sum of gradients, over
      clip_norm.
    clip_norm: Largest L2 norm of one example's gradient.
    relation: Between data sets of one client.

  Raises:
    UsageError: If the relation cannot be priced for such batches, or cohorts
      are extrapolated.
  """
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
    f'{wording.number(client.sampled_steps, "local step")} a round on Poisson '
    f'batches of rate {client.sampling_rate:g}'
    if sampled
    else f'{wording.number(client.epochs, "local epoch")} a round'
  )
  return Guarantee(
    scope=Scope.CLIENT_EXAMPLE,
    relation=relation,
    sampler=wording.sampler(
      terms.cohort, everybody=f'{terms.privacy.population} clients'
    )
    + f', {locally}',
    releases=(bounds.step_gradient(clip_norm, noise_multiplier),),
    bounds=(own,),
    clients=clients,
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
