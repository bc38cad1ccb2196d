"""What an experiment is: frozen records, valid from birth.

Every leaf is a flag (`Privacy.clip_norm` is `--privacy.clip_norm`). A leaf is
`None` while it is unset. A *choice* leaf (an enum) decides which other leaves
are used: setting a leaf that the choice does not use is an error, and so is
leaving out one that it needs. `config_flags` reads the same declarations, so
help texts, types and rules stand here once.
"""

from collections.abc import Callable, Mapping
import dataclasses
import enum
import math
import types
import typing
from typing import Any, ClassVar

from tff_pipeline import validate


class Partition(enum.StrEnum):
  """How a pooled data set is dealt to clients."""

  NATURAL = 'natural'
  IID = 'iid'
  DIRICHLET = 'dirichlet'


class Sampling(enum.StrEnum):
  """How a round's cohort is drawn from the population."""

  POISSON = 'poisson'
  FIXED_SIZE = 'fixed_size'
  FULL = 'full'


class Optimizer(enum.StrEnum):
  """Names of `tff.learning.optimizers`."""

  SGD = 'sgd'
  ADAM = 'adam'
  ADAGRAD = 'adagrad'
  YOGI = 'yogi'


class Weighting(enum.StrEnum):
  """Weight of a client's update in the average."""

  UNIFORM = 'uniform'
  NUM_EXAMPLES = 'num_examples'


class Batches(enum.StrEnum):
  """How centralized training draws its batches."""

  POISSON = 'poisson'
  FIXED_SIZE = 'fixed_size'


class AlgorithmName(enum.StrEnum):
  """Federated algorithms, one file each in `algorithms/`."""

  FED_AVG = 'fed_avg'
  CENTRALIZED = 'centralized'


class Mechanism(enum.StrEnum):
  """Differential privacy mechanisms; see docs/privacy.md."""

  NONE = 'none'
  GAUSSIAN = 'gaussian'
  GAUSSIAN_ADAPTIVE = 'gaussian_adaptive'
  LOCAL = 'local'
  DP_SGD = 'dp_sgd'


class Relation(enum.StrEnum):
  """Which two data sets are neighbours, for one user's whole data."""

  ADD_OR_REMOVE_ONE = 'add_or_remove_one'
  REPLACE_ONE = 'replace_one'
  ZERO_OUT = 'zero_out'


class SolveFor(enum.StrEnum):
  """The leaf that is solved for a target epsilon."""

  NOISE_MULTIPLIER = 'noise_multiplier'
  ROUNDS = 'rounds'
  CLIENTS_PER_ROUND = 'clients_per_round'


class EngineName(enum.StrEnum):
  """What executes a round."""

  IN_PROCESS = 'in_process'
  TFF_RUNTIME = 'tff_runtime'


class Shuffle(enum.StrEnum):
  """Order of a client's examples within an epoch."""

  ON = 'on'
  OFF = 'off'


@dataclasses.dataclass(frozen=True)
class LeafRule:
  """What a leaf means and which values it takes.

  Attributes:
    help: The flag's help text, with units.
    bounds: Keyword arguments for `validate.check_number`.
    used_by: A choice leaf of the same record, and the values that use this
      leaf; `None` if it is always used.
    required: Whether an unset leaf is an error where it is used.
  """

  help: str
  bounds: Mapping[str, float]
  used_by: tuple[str, tuple[str, ...]] | None
  required: bool


def _leaf(
  help_text: str,
  *,
  default: Any = None,
  used_by: tuple[str, tuple[str, ...]] | None = None,
  required: bool = False,
  **bounds: float,
) -> Any:
  rule = LeafRule(help_text, bounds, used_by, required)
  return dataclasses.field(default=default, metadata={'rule': rule})


def leaf_type(field: dataclasses.Field) -> type:
  """Returns the type of a leaf's set values: int, float, str or a StrEnum."""
  if isinstance(field.type, types.UnionType):
    return next(t for t in typing.get_args(field.type) if t is not type(None))
  return field.type


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Record:
  """Coerces, bounds and cross-checks the leaves of one record."""

  section: ClassVar[str] = ''

  def __post_init__(self) -> None:
    for field in _leaves(type(self)):
      value = getattr(self, field.name)
      if value is not None:
        checked = checked_leaf(self._flag(field.name), field, value)
        object.__setattr__(self, field.name, checked)
    for field in _leaves(type(self)):
      self._check_usage(field)

  @classmethod
  def _flag(cls, leaf: str) -> str:
    return f'{cls.section}.{leaf}' if cls.section else leaf

  def _check_usage(self, field: dataclasses.Field) -> None:
    rule = field.metadata['rule']
    value = getattr(self, field.name)
    flag = self._flag(field.name)
    used = True
    reason = ''
    if rule.used_by is not None:
      choice, users = rule.used_by
      chosen = getattr(self, choice)
      used = chosen in users
      reason = f'--{self._flag(choice)}={chosen}'
    if value is not None and not used:
      raise validate.error(
        flag,
        expected=f'no value, since {reason} does not use it',
        found=value,
        remedy=f'Leave it out, or set --{self._flag(rule.used_by[0])} to '
        + ' or '.join(rule.used_by[1]),
      )
    required = rule.required or field.default is not None
    if value is None and used and required:
      because = f' with {reason}' if reason else ''
      raise validate.error(
        flag,
        expected=f'a value{because} ({rule.help.rstrip(".")})',
        found='nothing',
      )


def _leaves(record_type: type) -> list[dataclasses.Field]:
  return [f for f in dataclasses.fields(record_type) if 'rule' in f.metadata]


def checked_leaf(flag: str, field: dataclasses.Field, value: Any) -> Any:
  """Returns a set value as the leaf's type.

  Raises:
    UsageError: If its type, choice or bounds do not fit; other leaves are not
      looked at.
  """
  wanted = leaf_type(field)
  if issubclass(wanted, enum.StrEnum):
    validate.check_choice(flag, value, tuple(wanted))
    return wanted(value)
  if wanted is float and type(value) is int:
    value = float(value) if abs(value) < 2**1023 else math.inf
  if type(value) is not wanted:
    names = {int: 'a whole number', float: 'a number', str: 'text'}
    raise validate.error(flag, expected=names[wanted], found=value)
  if wanted in (int, float):
    validate.check_number(flag, value, **field.metadata['rule'].bounds)
  return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(_Record):
  """The data, how it is dealt to clients, and the model."""

  section: ClassVar[str] = 'task'
  name: str | None = _leaf(
    'Data set with its loss and metrics: a name from tff_pipeline.tasks.',
    required=True,
  )
  model: str | None = _leaf(
    'Keras factory: a name from tff_pipeline.models or your own as '
    "package.module:function. Unset means the task's usual model."
  )
  partition: Partition = _leaf(
    'How pooled data is dealt to clients; natural keeps the clients that '
    'the data set comes with.',
    default=Partition.NATURAL,
  )
  clients: int | None = _leaf(
    'Number of clients that pooled data is dealt to.',
    used_by=('partition', (Partition.IID, Partition.DIRICHLET)),
    required=True,
    at_least=1,
  )
  concentration: float | None = _leaf(
    'Dirichlet concentration of the label distribution of a client: small '
    'is skewed (0.1), large is alike (100).',
    used_by=('partition', (Partition.DIRICHLET,)),
    required=True,
    above=0.0,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort(_Record):
  """Who takes part in a round."""

  section: ClassVar[str] = 'cohort'

  sampling: Sampling | None = _leaf(
    'poisson: each client by an independent coin, so cohorts vary in size; '
    'fixed_size: without replacement; full: everybody, every round.',
    required=True,
  )
  clients_per_round: int | None = _leaf(
    'Cohort size; the expected size under Poisson sampling.',
    used_by=('sampling', (Sampling.POISSON, Sampling.FIXED_SIZE)),
    at_least=1,
  )


_ADAPTIVE = (Optimizer.ADAM, Optimizer.ADAGRAD, Optimizer.YOGI)
_MOMENTS = (Optimizer.ADAM, Optimizer.YOGI)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OptimizerRecord(_Record):
  """The leaves of one optimizer; unset ones take TFF's defaults."""

  optimizer: Optimizer = _leaf(
    'A tff.learning.optimizers optimizer.', default=Optimizer.SGD
  )
  learning_rate: float | None = _leaf('Learning rate.', above=0.0)
  momentum: float | None = _leaf(
    'Momentum of SGD in [0, 1).',
    used_by=('optimizer', (Optimizer.SGD,)),
    at_least=0.0,
    below=1.0,
  )
  beta_1: float | None = _leaf(
    'Decay of the first moment in [0, 1).',
    used_by=('optimizer', _MOMENTS),
    at_least=0.0,
    below=1.0,
  )
  beta_2: float | None = _leaf(
    'Decay of the second moment in [0, 1).',
    used_by=('optimizer', _MOMENTS),
    at_least=0.0,
    below=1.0,
  )
  epsilon: float | None = _leaf(
    "The optimizer's numerical epsilon (adaptivity); not a privacy value.",
    used_by=('optimizer', _ADAPTIVE),
    above=0.0,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Client(_OptimizerRecord):
  """Local training of one client."""

  section: ClassVar[str] = 'client'

  epochs: int = _leaf(
    'Passes over the data of a client in one round.', default=1, at_least=1
  )
  batch_size: int | None = _leaf(
    'Examples in a local mini-batch; the last one of an epoch may be smaller.',
    required=True,
    at_least=1,
  )
  shuffle: Shuffle = _leaf(
    'Whether a client shuffles its examples before each epoch.',
    default=Shuffle.ON,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server(_OptimizerRecord):
  """The server's optimizer, applied to the averaged client update."""

  section: ClassVar[str] = 'server'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(_Record):
  """The federated algorithm."""

  section: ClassVar[str] = 'algorithm'

  name: AlgorithmName = _leaf(
    'Federated algorithm.', default=AlgorithmName.FED_AVG
  )
  weighting: Weighting = _leaf(
    "Weight of a client's update in the average.", default=Weighting.UNIFORM
  )
  batches: Batches | None = _leaf(
    'How centralized training draws a batch in each step: every example by '
    'its own coin, or exactly --client.batch_size without replacement.',
    used_by=('name', (AlgorithmName.CENTRALIZED,)),
    required=True,
  )


_CENTRAL = (Mechanism.GAUSSIAN, Mechanism.GAUSSIAN_ADAPTIVE)
_USER_LEVEL = (*_CENTRAL, Mechanism.LOCAL)
_NOISY = (*_USER_LEVEL, Mechanism.DP_SGD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Privacy(_Record):
  """The mechanism; nothing that it promises has a default.

  Noise is stated as a multiplier: its standard deviation over the clip norm.
  What it is added to depends on the mechanism:

  - `gaussian`, `gaussian_adaptive`: the sum of the clipped updates of a cohort;
  - `local`: one clipped update, on the client;
  - `dp_sgd`: the sum of the clipped per-example gradients of one local step.

  The `example_` leaves put example-level DP-SGD on the clients beneath a
  user-level mechanism; the run then has two statements.
  """

  section: ClassVar[str] = 'privacy'

  mechanism: Mechanism | None = _leaf(
    'Differential privacy mechanism.', required=True
  )
  noise_multiplier: float | None = _leaf(
    'Noise standard deviation over clip_norm: on the sum of updates (local: '
    'on one update; dp_sgd: on the sum of the gradients of a step). 0 clips '
    'without noise (epsilon is infinite).',
    used_by=('mechanism', _NOISY),
    at_least=0.0,
  )
  clip_norm: float | None = _leaf(
    'Largest L2 norm of one update, in units of the model weights (dp_sgd: '
    'of the gradient of one example; gaussian_adaptive: before the first '
    'round).',
    used_by=('mechanism', _NOISY),
    required=True,
    above=0.0,
  )
  delta: float | None = _leaf(
    'Delta of the (epsilon, delta) statement; below 1/population.',
    used_by=('mechanism', _NOISY),
    required=True,
    above=0.0,
    below=1.0,
  )
  population: int | None = _leaf(
    'Number of clients that could take part (centralized: of examples); '
    'checked against the data.',
    used_by=('mechanism', _NOISY),
    required=True,
    at_least=1,
  )
  relation: Relation | None = _leaf(
    'Neighbouring relation of the guarantee; zero_out replaces the update of '
    "one client by zero. Unset means the sampling's own: add_or_remove_one "
    'for poisson and full, replace_one for fixed_size.',
    used_by=('mechanism', _NOISY),
  )
  target_epsilon: float | None = _leaf(
    'Solve --privacy.solve_for so that the final epsilon is at most this.',
    used_by=('mechanism', _NOISY),
    above=0.0,
  )
  solve_for: SolveFor | None = _leaf(
    'The leaf that --privacy.target_epsilon solves; unset means '
    'noise_multiplier.',
    used_by=('mechanism', _NOISY),
  )
  target_quantile: float | None = _leaf(
    'Share of updates that the adaptive clip norm leaves unclipped, in [0, 1].',
    used_by=('mechanism', (Mechanism.GAUSSIAN_ADAPTIVE,)),
    required=True,
    at_least=0.0,
    at_most=1.0,
  )
  clip_learning_rate: float | None = _leaf(
    'Learning rate of the adaptive clip norm, on its logarithm.',
    used_by=('mechanism', (Mechanism.GAUSSIAN_ADAPTIVE,)),
    required=True,
    above=0.0,
  )
  clipped_count_stddev: float | None = _leaf(
    'Noise standard deviation on the count of unclipped updates; Andrew et '
    'al. suggest a twentieth of the cohort. More than half of '
    'noise_multiplier, which the two releases share.',
    used_by=('mechanism', (Mechanism.GAUSSIAN_ADAPTIVE,)),
    required=True,
    above=0.0,
  )
  noise_cohort_size: int | None = _leaf(
    'Extrapolates: noise and price are those of a cohort of this size from '
    '--privacy.population clients, simulated on a smaller cohort. The run '
    'itself does not have the privacy that is stated.',
    used_by=('mechanism', _CENTRAL),
    at_least=1,
  )
  example_noise_multiplier: float | None = _leaf(
    'Noise standard deviation on the sum of the gradients of a local step, '
    'over example_clip_norm: DP-SGD beneath the user-level mechanism.',
    used_by=('mechanism', _USER_LEVEL),
    at_least=0.0,
  )
  example_clip_norm: float | None = _leaf(
    'Largest L2 norm of the gradient of one example.',
    used_by=('mechanism', _USER_LEVEL),
    above=0.0,
  )
  noise_seed: int | None = _leaf(
    'Fixes the noise key: a reproducible simulation, not a private release. '
    'Unset draws the key from the operating system.',
    used_by=('mechanism', _NOISY),
    at_least=0,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(_Record):
  """A whole experiment, valid by construction.

  Attributes are the sub-records and the top-level leaves; see `--help`.
  """

  task: Task
  cohort: Cohort
  client: Client
  server: Server
  privacy: Privacy
  algorithm: Algorithm = Algorithm()
  rounds: int | None = _leaf('Rounds of federated training.', at_least=1)
  seed: int = _leaf(
    'Decides partition, initial weights, cohorts and shuffles; never DP noise.',
    default=0,
    at_least=0,
  )
  evaluate_every: int = _leaf(
    'Rounds between evaluations on held-out data; the last round is always '
    'evaluated.',
    default=1,
    at_least=1,
  )
  checkpoint_every: int = _leaf(
    'Rounds between checkpoints; the last round is always saved.',
    default=5,
    at_least=1,
  )
  engine: EngineName = _leaf(
    'What executes a round: in_process, inside TensorFlow and several times '
    "faster; or tff_runtime, TFF's worker process, the reference.",
    default=EngineName.IN_PROCESS,
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    for check in _CROSS_CHECKS:
      check(self)


def _check_solved_leaf(config: Experiment) -> None:
  """Exactly one of a leaf's value and a target for it is given."""
  privacy = config.privacy
  solving = privacy.target_epsilon is not None
  if privacy.solve_for is not None and not solving:
    raise validate.error(
      'privacy.solve_for',
      expected='no value without --privacy.target_epsilon',
      found=privacy.solve_for,
    )
  target_leaf = privacy.solve_for or SolveFor.NOISE_MULTIPLIER
  given = {
    'privacy.noise_multiplier': (
      privacy.noise_multiplier,
      privacy.mechanism in _NOISY,
      SolveFor.NOISE_MULTIPLIER,
    ),
    'rounds': (config.rounds, True, SolveFor.ROUNDS),
    'cohort.clients_per_round': (
      config.cohort.clients_per_round,
      config.cohort.sampling is not Sampling.FULL,
      SolveFor.CLIENTS_PER_ROUND,
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


def _check_cohort_size(config: Experiment) -> None:
  size = config.cohort.clients_per_round
  limits = {
    'privacy.population': config.privacy.population,
    'task.clients': config.task.clients,
  }
  for flag, limit in limits.items():
    if size is not None and limit is not None and size > limit:
      raise validate.error(
        'cohort.clients_per_round',
        expected=f'at most --{flag}={limit}',
        found=size,
        remedy=f'Lower it or raise --{flag}',
      )


def _check_population(config: Experiment) -> None:
  clients, population = config.task.clients, config.privacy.population
  counts_clients = (
    config.privacy.noise_cohort_size is None and not _is_centralized(config)
  )
  if (
    counts_clients
    and None not in (clients, population)
    and clients != population
  ):
    raise validate.error(
      'privacy.population',
      expected=f'the number of clients, --task.clients={clients}',
      found=population,
      remedy='Make the two equal: epsilon depends on the real population',
    )


def _check_delta(config: Experiment) -> None:
  delta, population = config.privacy.delta, config.privacy.population
  if config.privacy.mechanism is Mechanism.DP_SGD and not _is_centralized(
    config
  ):
    return  # The population are examples; known when the data is loaded.
  if None not in (delta, population) and delta >= 1 / population:
    raise validate.error(
      'privacy.delta',
      expected=f'below 1/population = 1/{population} = {1 / population:.3g}',
      found=delta,
      remedy='Publishing one whole client would meet a larger delta',
    )


def _check_weighting(config: Experiment) -> None:
  if (
    config.privacy.mechanism in _USER_LEVEL
    and config.algorithm.weighting is not Weighting.UNIFORM
  ):
    raise validate.error(
      'algorithm.weighting',
      expected=f'{Weighting.UNIFORM} with user-level privacy: a weight is '
      'an un-noised function of private data',
      found=config.algorithm.weighting,
    )


def _check_adaptive_clipping(config: Experiment) -> None:
  noise, count = (
    config.privacy.noise_multiplier,
    config.privacy.clipped_count_stddev,
  )
  if noise and count is not None and 2 * count <= noise:
    raise validate.error(
      'privacy.clipped_count_stddev',
      expected=f'above noise_multiplier / 2 = {noise / 2:g}: the count spends '
      'a part of the budget, and this noise would spend all of it',
      found=count,
    )


def _check_example_level(config: Experiment) -> None:
  privacy = config.privacy
  given = {
    'privacy.example_noise_multiplier': privacy.example_noise_multiplier,
    'privacy.example_clip_norm': privacy.example_clip_norm,
  }
  missing = [flag for flag, value in given.items() if value is None]
  if len(missing) == 1:
    raise validate.error(
      missing[0], expected='both example_ leaves or neither', found='nothing'
    )


def _check_noise_cohort_size(config: Experiment) -> None:
  size, population = config.privacy.noise_cohort_size, config.privacy.population
  if size is None:
    return
  if config.cohort.sampling is Sampling.FULL:
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


def _is_centralized(config: Experiment) -> bool:
  return config.algorithm.name is AlgorithmName.CENTRALIZED


def _check_algorithm(config: Experiment) -> None:
  """Centralized training has no server step, no cohorts and no users."""
  if config.client.learning_rate is None:
    raise validate.error(
      'client.learning_rate', expected='a value', found='nothing'
    )
  rate = config.server.learning_rate
  if not _is_centralized(config):
    if rate is None:
      raise validate.error(
        'server.learning_rate', expected='a value', found='nothing'
      )
    return
  reason = f'with --algorithm.name={AlgorithmName.CENTRALIZED}'
  if rate is not None:
    raise validate.error(
      'server.learning_rate', expected=f'no value {reason}', found=rate
    )
  if config.cohort.sampling is not Sampling.FULL:
    raise validate.error(
      'cohort.sampling',
      expected=f'{Sampling.FULL} {reason}: all data is in one place',
      found=config.cohort.sampling,
    )
  if config.privacy.mechanism not in (Mechanism.NONE, Mechanism.DP_SGD):
    raise validate.error(
      'privacy.mechanism',
      expected=f'{Mechanism.NONE} or {Mechanism.DP_SGD} {reason}',
      found=config.privacy.mechanism,
    )


_CROSS_CHECKS: tuple[Callable[[Experiment], None], ...] = (
  _check_solved_leaf,
  _check_cohort_size,
  _check_population,
  _check_delta,
  _check_weighting,
  _check_adaptive_clipping,
  _check_example_level,
  _check_noise_cohort_size,
  _check_algorithm,
)


def poisson(clients_per_round: int | None = None) -> Cohort:
  """Returns Poisson cohorts of this expected size."""
  return Cohort(sampling=Sampling.POISSON, clients_per_round=clients_per_round)


def fixed_size(clients_per_round: int | None = None) -> Cohort:
  """Returns cohorts of exactly this size, drawn without replacement."""
  return Cohort(
    sampling=Sampling.FIXED_SIZE, clients_per_round=clients_per_round
  )


def full() -> Cohort:
  """Returns full participation: every client in every round."""
  return Cohort(sampling=Sampling.FULL)


def no_privacy() -> Privacy:
  """Returns training without a mechanism; its epsilon is infinite."""
  return Privacy(mechanism=Mechanism.NONE)


def gaussian(**leaves: Any) -> Privacy:
  """Returns the user-level Gaussian mechanism with a fixed clip norm."""
  return Privacy(mechanism=Mechanism.GAUSSIAN, **leaves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
  """The leaves that epsilon depends on, beside what was released.

  The seed decides who took part, which matters where each client has a
  guarantee of its own.
  """

  privacy: Privacy
  cohort: Cohort
  client: Client
  algorithm: Algorithm
  seed: int


def terms(experiment: Experiment) -> Terms:
  """Returns the terms that an experiment is priced on."""
  return Terms(
    privacy=experiment.privacy,
    cohort=experiment.cohort,
    client=experiment.client,
    algorithm=experiment.algorithm,
    seed=experiment.seed,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """What an experiment file promises, checked by tests and by its reader.

  Attributes:
    epsilon: Headline epsilon at the last round, to two significant decimals.
    accuracy: Lowest and highest final accuracy over the named seeds.
    source: Who measured it, and on how many seeds.
  """

  epsilon: float
  accuracy: tuple[float, float]
  source: str


def with_solution(
  experiment: Experiment, leaf: str, value: float | int
) -> Experiment:
  """Returns the config with a solved leaf in the place of its target.

  Args:
    experiment: A config with `privacy.target_epsilon`.
    leaf: Dotted name of the leaf that was solved.
    value: Its value.
  """
  values = to_dict(experiment)
  values['privacy'].pop('target_epsilon')
  values['privacy'].pop('solve_for', None)
  section, _, name = leaf.rpartition('.')
  (values[section] if section else values)[name] = value
  return from_dict(values)


def to_dict(config: Experiment) -> dict[str, Any]:
  """Returns the set leaves as nested plain values, ready for JSON."""

  def plain(record: Any) -> dict[str, Any]:
    values = {}
    for field in dataclasses.fields(record):
      value = getattr(record, field.name)
      if dataclasses.is_dataclass(value):
        values[field.name] = plain(value)
      elif value is not None:
        values[field.name] = (
          str(value) if isinstance(value, enum.StrEnum) else value
        )
    return values

  return plain(config)


def from_dict(values: Mapping[str, Any]) -> Experiment:
  """Returns the experiment that `to_dict` wrote.

  Raises:
    UsageError: If a name is unknown or a value is not allowed.
  """
  return _record_from_dict(Experiment, values, prefix='')


def _record_from_dict(
  record_type: type, values: Mapping[str, Any], prefix: str
) -> Any:
  fields = {f.name: f for f in dataclasses.fields(record_type)}
  if not isinstance(values, Mapping):
    raise validate.error(
      prefix.rstrip('.'), expected='a group of leaves', found=values
    )
  for name in values:
    if name not in fields:
      raise validate.error(
        prefix + name, expected='a leaf of the config', found='an unknown one'
      )
  arguments = dict(values)
  for name, field in fields.items():
    if dataclasses.is_dataclass(field.type):
      arguments[name] = _record_from_dict(
        field.type, values.get(name, {}), prefix=name + '.'
      )
  return record_type(**arguments)
