"""What the leaves of different records demand of one another."""

from collections.abc import Callable
import typing

from tff_pipeline import validate
from tff_pipeline.config import choices
from tff_pipeline.config import privacy as privacy_leaves
from tff_pipeline.config import rules
from tff_pipeline.config import task as task_leaves

if typing.TYPE_CHECKING:
  from tff_pipeline.config import records


def _check_solved_leaf(experiment: 'records.Experiment') -> None:
  """Exactly one of a leaf's value and a target for it is given."""
  privacy = experiment.privacy
  solving = privacy.target_epsilon is not None
  if privacy.solve_for is not None and not solving:
    raise validate.error(
      'privacy.solve_for',
      expected='no value without --privacy.target_epsilon',
      found=privacy.solve_for,
    )
  target_leaf = privacy.solve_for or choices.SolveFor.NOISE_MULTIPLIER
  given = {
    'privacy.noise_multiplier': (
      privacy.noise_multiplier,
      privacy.mechanism in privacy_leaves.NOISY,
      choices.SolveFor.NOISE_MULTIPLIER,
    ),
    'rounds': (experiment.rounds, True, choices.SolveFor.ROUNDS),
    'cohort.clients_per_round': (
      experiment.cohort.clients_per_round,
      experiment.cohort.sampling is not choices.Sampling.FULL,
      choices.SolveFor.CLIENTS_PER_ROUND,
    ),
  }
  for flag, (value, needed, name) in given.items():
    solved = solving and target_leaf is name
    if solved and value is not None:
      raise validate.error(
        flag,
        expected='no value, since --privacy.target_epsilon solves for it',
        found=value,
        remedy='Leave one of the two out',
      )
    if needed and not solved and value is None:
      raise validate.error(flag, expected='a value', found='nothing')
    if solved and not needed:
      raise validate.error(
        'privacy.solve_for',
        expected=f'a leaf in use; --{flag} is not used here',
        found=target_leaf,
      )


def _check_cohort_size(experiment: 'records.Experiment') -> None:
  size = experiment.cohort.clients_per_round
  limits = {
    'privacy.population': experiment.privacy.population,
    'task.clients': _training_clients(experiment),
  }
  for flag, limit in limits.items():
    if size is not None and limit is not None and size > limit:
      raise validate.error(
        'cohort.clients_per_round',
        expected=f'at most --{flag}={limit}',
        found=size,
        remedy=f'Lower it or raise --{flag}',
      )


def _training_clients(experiment: 'records.Experiment') -> int | None:
  """Returns how many clients can take part, if the config says it."""
  clients = experiment.task.clients
  if clients is None:
    return None
  return clients - experiment.personalization.held_out


def _check_held_out(experiment: 'records.Experiment') -> None:
  left = _training_clients(experiment)
  held_out = experiment.personalization.held_out
  if held_out and left is not None and left < 1:
    raise validate.error(
      'personalization.test_clients',
      expected='clients that are left to train: fewer held out than '
      f'--task.clients={experiment.task.clients}',
      found=f'{held_out} held out',
    )


def _check_remembering(experiment: 'records.Experiment') -> None:
  """Refuses amplification that is not proven for clients with a memory.

  See `algorithms.partial` on what is.
  """
  if (
    experiment.algorithm.name in choices.REMEMBERED_LAYERS
    and experiment.privacy.mechanism in privacy_leaves.USER_LEVEL
    and experiment.cohort.sampling is choices.Sampling.FIXED_SIZE
  ):
    raise validate.error(
      'cohort.sampling',
      expected=f'{choices.Sampling.POISSON} or {choices.Sampling.FULL} with '
      f'--algorithm.name={experiment.algorithm.name}: its clients remember, '
      'and amplification by cohorts of a fixed size is then not proven',
      found=experiment.cohort.sampling,
    )


def _check_reconstructed(experiment: 'records.Experiment') -> None:
  if (
    experiment.algorithm.name is choices.AlgorithmName.FED_RECON
    and experiment.evaluate_clients_every is not None
  ):
    raise validate.error(
      'evaluate_clients_every',
      expected=f'no value with --algorithm.name={experiment.algorithm.name}: '
      'its clients have no layers of their own between rounds',
      found=experiment.evaluate_clients_every,
      remedy='Set --personalization.name='
      f'{choices.PersonalizationName.FINE_TUNING}',
    )


def _check_population(experiment: 'records.Experiment') -> None:
  clients = _training_clients(experiment)
  population = experiment.privacy.population
  counts_clients = (
    experiment.privacy.noise_cohort_size is None
    and not _is_centralized(experiment)
  )
  if (
    counts_clients
    and None not in (clients, population)
    and clients != population
  ):
    raise validate.error(
      'privacy.population',
      expected=f'the number of clients that train, {clients}',
      found=population,
      remedy='Make the two equal: epsilon depends on the real population',
    )


def _check_delta(experiment: 'records.Experiment') -> None:
  delta, population = experiment.privacy.delta, experiment.privacy.population
  if (
    experiment.privacy.mechanism is choices.Mechanism.DP_SGD
    and not _is_centralized(experiment)
  ):
    return  # The population are examples; known when the data is loaded.
  if None not in (delta, population) and delta >= 1 / population:
    raise validate.error(
      'privacy.delta',
      expected=f'below 1/population = 1/{population} = {1 / population:.3g}',
      found=delta,
      remedy='Publishing one whole client would meet a larger delta',
    )


def _check_weighting(experiment: 'records.Experiment') -> None:
  if (
    experiment.privacy.mechanism in privacy_leaves.USER_LEVEL
    and experiment.algorithm.weighting is not choices.Weighting.UNIFORM
  ):
    raise validate.error(
      'algorithm.weighting',
      expected=f'{choices.Weighting.UNIFORM} with user-level privacy: a '
      'weight is an un-noised function of private data',
      found=experiment.algorithm.weighting,
    )


def _check_adaptive_clipping(experiment: 'records.Experiment') -> None:
  noise, count = (
    experiment.privacy.noise_multiplier,
    experiment.privacy.clipped_count_stddev,
  )
  if noise and count is not None and 2 * count <= noise:
    raise validate.error(
      'privacy.clipped_count_stddev',
      expected=f'above noise_multiplier / 2 = {noise / 2:g}: the count spends '
      'a part of the budget, and this noise would spend all of it',
      found=count,
    )


def _check_example_level(experiment: 'records.Experiment') -> None:
  privacy = experiment.privacy
  given = {
    'privacy.example_noise_multiplier': privacy.example_noise_multiplier,
    'privacy.example_clip_norm': privacy.example_clip_norm,
  }
  missing = [flag for flag, value in given.items() if value is None]
  if len(missing) == 1:
    raise validate.error(
      missing[0], expected='both example_ leaves or neither', found='nothing'
    )


def _check_noise_cohort_size(experiment: 'records.Experiment') -> None:
  size, population = (
    experiment.privacy.noise_cohort_size,
    experiment.privacy.population,
  )
  if size is None:
    return
  if experiment.cohort.sampling is choices.Sampling.FULL:
    raise validate.error(
      'privacy.noise_cohort_size',
      expected='no value with --cohort.sampling=full',
      found=size,
    )
  if size > population:
    raise validate.error(
      'privacy.noise_cohort_size',
      expected=f'at most --privacy.population={population}',
      found=size,
    )


def _is_centralized(experiment: 'records.Experiment') -> bool:
  return experiment.algorithm.name is choices.AlgorithmName.CENTRALIZED


def _check_learning_rates(experiment: 'records.Experiment') -> None:
  """Both are given, unless the algorithm takes no such steps."""
  name = experiment.algorithm.name
  needed = {
    'client.learning_rate': (
      experiment.client.learning_rate,
      rules.takes_local_steps(name),
    ),
    'server.learning_rate': (
      experiment.server.learning_rate,
      not _is_centralized(experiment),
    ),
  }
  for flag, (rate, is_needed) in needed.items():
    if is_needed and rate is None:
      raise validate.error(flag, expected='a value', found='nothing')


def _check_sampling_rate(experiment: 'records.Experiment') -> None:
  rate = experiment.client.sampling_rate
  if rate is None:
    return
  privacy, personalization = experiment.privacy, experiment.personalization
  if _is_centralized(experiment):
    raise validate.error(
      'client.sampling_rate',
      expected=f'no value with --algorithm.name={experiment.algorithm.name}',
      found=rate,
      remedy='Set --client.batch_size and --algorithm.batches='
      f'{choices.Batches.POISSON}',
    )
  if (
    privacy.mechanism is not choices.Mechanism.DP_SGD
    and privacy.example_clip_norm is None
  ):
    raise validate.error(
      'client.sampling_rate',
      expected=f'no value without {choices.Mechanism.DP_SGD} or the example_ '
      'leaves of --privacy: it is there to amplify their noise',
      found=rate,
      remedy='Set --client.batch_size',
    )
  if (
    personalization.name is not choices.PersonalizationName.NONE
    and personalization.batch_size is None
  ):
    raise validate.error(
      'personalization.batch_size',
      expected='a value with --client.sampling_rate',
      found='nothing',
    )


def _check_unkeyed_noise(experiment: 'records.Experiment') -> None:
  if (
    experiment.algorithm.batches is choices.Batches.FIXED_SIZE
    and experiment.privacy.noise_seed is not None
  ):
    raise validate.error(
      'privacy.noise_seed',
      expected=f'no value with --algorithm.batches={choices.Batches.FIXED_SIZE}'
      ": TensorFlow Privacy's optimizers draw noise that no key decides",
      found=experiment.privacy.noise_seed,
    )


_WITH_STRAGGLERS = (
  choices.AlgorithmName.FED_AVG,
  choices.AlgorithmName.FED_PROX,
)


def _check_stragglers(experiment: 'records.Experiment') -> None:
  client, algorithm = experiment.client, experiment.algorithm.name
  if client.stragglers is choices.Stragglers.NONE:
    return
  if algorithm not in _WITH_STRAGGLERS:
    raise validate.error(
      'client.stragglers',
      expected=f'{choices.Stragglers.NONE} with --algorithm.name={algorithm}',
      found=client.stragglers,
      remedy='They are simulated with ' + ' and '.join(_WITH_STRAGGLERS),
    )
  # Under dp_sgd who is slow depends on no example, and being slow means fewer
  # steps than are priced.
  if experiment.privacy.mechanism in privacy_leaves.USER_LEVEL:
    raise validate.error(
      'client.stragglers',
      expected=f'{choices.Stragglers.NONE} with --privacy.mechanism='
      f'{experiment.privacy.mechanism}: a share of each cohort is slow, so one '
      'client more or less also changes what others send, which no price here '
      'covers',
      found=client.stragglers,
    )
  if client.stragglers is choices.Stragglers.PARTIAL and client.epochs < 2:
    raise validate.error(
      'client.epochs',
      expected='at least 2 with --client.stragglers='
      f'{client.stragglers}: there is no whole epoch below one',
      found=client.epochs,
    )


def _check_attacked_noise(experiment: 'records.Experiment') -> None:
  """A dishonest client scales its report, and with it the noise in it."""
  scale = experiment.attack.scale
  if (
    scale is not None
    and scale < 1
    and experiment.privacy.mechanism is choices.Mechanism.LOCAL
  ):
    raise validate.error(
      'attack.scale',
      expected='1 or more with --privacy.mechanism='
      f'{experiment.privacy.mechanism}: what it promises against an observer '
      'of sums counts the noise of all clients',
      found=scale,
    )


def _check_only_client(experiment: 'records.Experiment') -> None:
  """A silo that trains alone is one of those that there are, and alone."""
  task = experiment.task
  if task.only_client is None:
    return
  if not _is_centralized(experiment):
    raise validate.error(
      'task.only_client',
      expected='no value with '
      f'--algorithm.name={experiment.algorithm.name}: one client has nobody to '
      'average with',
      found=task.only_client,
      remedy=f'Set --algorithm.name={choices.AlgorithmName.CENTRALIZED}',
    )
  if task.clients is not None and task.only_client >= task.clients:
    raise validate.error(
      'task.only_client',
      expected=f'below --task.clients={task.clients}',
      found=task.only_client,
    )


def _check_own_data(experiment: 'records.Experiment') -> None:
  """The user's own files have no stand-in, and clients only if said which."""
  task = experiment.task
  natural = task.partition is choices.Partition.NATURAL
  if task.name not in tuple(choices.FileTask):
    return
  if task.source is not choices.Source.REAL:
    raise validate.error(
      'task.source',
      expected=f'{choices.Source.REAL} with --task.name={task.name}',
      found=task.source,
    )
  if task.name in task_leaves.TABLES and natural and not task.client_column:
    raise validate.error(
      'task.client_column',
      expected=f'a column, since --task.partition={task.partition} needs '
      'clients',
      found='nothing',
      remedy='Name it, or deal the rows, as in --task.partition=iid '
      '--task.clients=100',
    )


def _check_evaluation(experiment: 'records.Experiment') -> None:
  every, clients = (
    experiment.evaluate_every,
    experiment.evaluate_clients_every,
  )
  if clients is not None and clients % every:
    raise validate.error(
      'evaluate_clients_every',
      expected=f'a multiple of --evaluate_every={every}',
      found=clients,
    )


CROSS_CHECKS: tuple[Callable[['records.Experiment'], None], ...] = (
  _check_solved_leaf,
  _check_cohort_size,
  _check_held_out,
  _check_population,
  _check_delta,
  _check_weighting,
  _check_adaptive_clipping,
  _check_example_level,
  _check_sampling_rate,
  _check_noise_cohort_size,
  _check_learning_rates,
  _check_unkeyed_noise,
  _check_evaluation,
  _check_remembering,
  _check_reconstructed,
  rules.check,
  _check_attacked_noise,
  _check_only_client,
  _check_stragglers,
  _check_own_data,
)
