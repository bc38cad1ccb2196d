"""Cohorts, client and server optimizers, and the algorithm."""

import dataclasses
from typing import ClassVar

from tff_pipeline import validate
from tff_pipeline.config import choices
from tff_pipeline.config import leaves

_ALTERNATING = (
  'name',
  (choices.AlgorithmName.FED_REP, choices.AlgorithmName.FED_RECON),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort(leaves.Record):
  """Who takes part in a round."""

  section: ClassVar[str] = 'cohort'

  sampling: choices.Sampling | None = leaves.leaf(
    'poisson: each client by an independent coin, so cohorts vary in size; '
    'fixed_size: without replacement; full: everybody, every round.',
    required=True,
  )
  clients_per_round: int | None = leaves.leaf(
    'Cohort size; the expected size under Poisson sampling.',
    used_by=(
      'sampling',
      (choices.Sampling.POISSON, choices.Sampling.FIXED_SIZE),
    ),
    at_least=1,
  )


_ADAPTIVE = (
  choices.Optimizer.ADAM,
  choices.Optimizer.ADAGRAD,
  choices.Optimizer.YOGI,
)
_ACCUMULATING = (choices.Optimizer.ADAGRAD, choices.Optimizer.YOGI)
_MOMENTS = (choices.Optimizer.ADAM, choices.Optimizer.YOGI)
_DECAYING_TO = (
  choices.Decay.EXPONENTIAL,
  choices.Decay.LINEAR,
  choices.Decay.COSINE,
)
_DECAYING = (choices.Decay.INVERSE_SQRT, *_DECAYING_TO)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OptimizerRecord(leaves.Record):
  """The leaves of one optimizer; unset ones take TFF's defaults."""

  optimizer: choices.Optimizer = leaves.leaf(
    'A tff.learning.optimizers optimizer.', default=choices.Optimizer.SGD
  )
  learning_rate: float | None = leaves.leaf('Learning rate.', above=0.0)
  momentum: float | None = leaves.leaf(
    'Momentum of SGD in [0, 1).',
    used_by=('optimizer', (choices.Optimizer.SGD,)),
    at_least=0.0,
    below=1.0,
  )
  beta_1: float | None = leaves.leaf(
    'Decay of the first moment in [0, 1).',
    used_by=('optimizer', _MOMENTS),
    at_least=0.0,
    below=1.0,
  )
  beta_2: float | None = leaves.leaf(
    'Decay of the second moment in [0, 1).',
    used_by=('optimizer', _MOMENTS),
    at_least=0.0,
    below=1.0,
  )
  epsilon: float | None = leaves.leaf(
    "The optimizer's numerical epsilon (adaptivity); not a privacy value.",
    used_by=('optimizer', _ADAPTIVE),
    above=0.0,
  )
  initial_accumulator: float | None = leaves.leaf(
    'What the sum of squares starts from; unset means as in TFF: 0.1 for '
    'adagrad, 1e-6 for yogi.',
    used_by=('optimizer', _ACCUMULATING),
    at_least=0.0,
  )
  decay: choices.Decay = leaves.leaf(
    'How the learning rate falls after the warm-up, over rounds.',
    default=choices.Decay.CONSTANT,
  )
  decay_rounds: int | None = leaves.leaf(
    'Rounds that the decay takes: the time constant of exponential and '
    'inverse_sqrt, the length of linear and cosine.',
    used_by=('decay', _DECAYING),
    required=True,
    at_least=1,
  )
  decay_factor: float | None = leaves.leaf(
    'Learning rate after decay_rounds over learning_rate.',
    used_by=('decay', _DECAYING_TO),
    required=True,
    at_least=0.0,
    at_most=1.0,
  )
  warmup_rounds: int | None = leaves.leaf(
    'First rounds, in which the learning rate rises linearly to '
    'learning_rate; unset means none.',
    at_least=1,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Client(_OptimizerRecord):
  """Local training of one client."""

  section: ClassVar[str] = 'client'

  epochs: int = leaves.leaf(
    'Passes over the data of a client in one round.', default=1, at_least=1
  )
  batch_size: int | None = leaves.leaf(
    'Examples in a local mini-batch; the last one of an epoch may be smaller.',
    at_least=1,
  )
  sampling_rate: float | None = leaves.leaf(
    'In the place of batch_size, under dp_sgd: each local step draws each '
    'example of the client by its own coin of this chance (Poisson batches), '
    'which amplifies privacy; a round takes epochs / sampling_rate steps.',
    above=0.0,
    at_most=1.0,
  )
  shuffle: choices.Shuffle = leaves.leaf(
    'Whether a client shuffles its examples before each epoch.',
    default=choices.Shuffle.ON,
  )
  max_examples: int | None = leaves.leaf(
    'A client trains on its first ones only, at most this many.', at_least=1
  )
  max_steps: int | None = leaves.leaf(
    'A client stops after this many steps in a round, over all epochs.',
    at_least=1,
  )
  stragglers: choices.Stragglers = leaves.leaf(
    'What becomes of clients that are too slow for all epochs of a round: '
    'none is; their work is dropped, as FedAvg does; or what they got through '
    'counts (partial), as in FedProx.',
    default=choices.Stragglers.NONE,
  )
  straggler_share: float | None = leaves.leaf(
    'Share of each cohort that is too slow, rounded to whole clients. Who it '
    'is, and how many epochs below --client.epochs it gets through, follows '
    '--seed and the round.',
    used_by=(
      'stragglers',
      (choices.Stragglers.DROP, choices.Stragglers.PARTIAL),
    ),
    required=True,
    at_least=0.0,
    below=1.0,
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    given = (self.batch_size, self.sampling_rate)
    if given.count(None) != 1:
      raise validate.error(
        'client.batch_size',
        expected='a value, or one of --client.sampling_rate in its place',
        found='both' if None not in given else 'nothing',
      )
    if self.sampling_rate is not None and self.shuffle is choices.Shuffle.OFF:
      raise validate.error(
        'client.shuffle',
        expected=f'{choices.Shuffle.ON} with --client.sampling_rate',
        found=self.shuffle,
      )

  @property
  def sampled_steps(self) -> int:
    """Local steps in a round with Poisson batches.

    >>> Client(sampling_rate=0.03, epochs=2).sampled_steps
    67
    """
    steps = round(self.epochs / self.sampling_rate)
    return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server(_OptimizerRecord):
  """The server's optimizer, applied to the averaged client update."""

  section: ClassVar[str] = 'server'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(leaves.Record):
  """The federated algorithm."""

  section: ClassVar[str] = 'algorithm'

  name: choices.AlgorithmName = leaves.leaf(
    'Federated algorithm.', default=choices.AlgorithmName.FED_AVG
  )
  weighting: choices.Weighting = leaves.leaf(
    "Weight of a client's update in the average.",
    default=choices.Weighting.UNIFORM,
  )
  batches: choices.Batches | None = leaves.leaf(
    'How centralized training draws a batch in each step: every example by '
    'its own coin, or exactly --client.batch_size without replacement.',
    used_by=('name', (choices.AlgorithmName.CENTRALIZED,)),
    required=True,
  )
  proximal_strength: float | None = leaves.leaf(
    'Weight mu of the proximal term mu/2 |w - w_global|^2 in the local loss.',
    used_by=('name', (choices.AlgorithmName.FED_PROX,)),
    required=True,
    at_least=0.0,
  )
  fairness: float | None = leaves.leaf(
    'Exponent q: the global loss is the mean of the (q+1)-th powers of the '
    "clients' losses; 0 is the plain mean, larger is fairer.",
    used_by=('name', (choices.AlgorithmName.Q_FED_AVG,)),
    required=True,
    at_least=0.0,
  )
  regularization_strength: float | None = leaves.leaf(
    "Weight alpha of FedDyn's dynamic regularizer in the local loss.",
    used_by=('name', (choices.AlgorithmName.FED_DYN,)),
    required=True,
    above=0.0,
  )
  local_layers: str | None = leaves.leaf(
    'Layers that stay on the clients: how many of the last ones that have '
    'weights (0 shares all), or the names of some, with commas between.',
    used_by=('name', choices.LOCAL_LAYERS),
    required=True,
  )
  local_steps: int | None = leaves.leaf(
    'Steps of a client on its local layers, the shared ones fixed, before the '
    'steps on the shared layers.',
    used_by=_ALTERNATING,
    required=True,
    at_least=0,
  )
  local_learning_rate: float | None = leaves.leaf(
    'Learning rate of these steps; unset means that of the client, its '
    'schedule included.',
    used_by=_ALTERNATING,
    above=0.0,
  )
  aggregator: choices.Aggregator = leaves.leaf(
    'How the updates of a cohort become one; all but the mean are robust '
    'against some dishonest clients.',
    default=choices.Aggregator.MEAN,
  )
  norm_limit: float | None = leaves.leaf(
    'L2 norm above which an update is scaled down (clipped_mean) or dropped '
    '(zeroed_mean), in units of the model weights.',
    used_by=(
      'aggregator',
      (choices.Aggregator.CLIPPED_MEAN, choices.Aggregator.ZEROED_MEAN),
    ),
    required=True,
    above=0.0,
  )
  trimmed_share: float | None = leaves.leaf(
    'Share of the cohort that is left out at each end, in each coordinate.',
    used_by=('aggregator', (choices.Aggregator.TRIMMED_MEAN,)),
    required=True,
    at_least=0.0,
    below=0.5,
  )
  weiszfeld_steps: int | None = leaves.leaf(
    'Steps of the smoothed Weiszfeld algorithm; 0 is the weighted mean.',
    used_by=('aggregator', (choices.Aggregator.GEOMETRIC_MEDIAN,)),
    required=True,
    at_least=0,
  )
