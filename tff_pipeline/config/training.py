"""Cohorts, client and server optimizers, and the algorithm."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves


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
_MOMENTS = (choices.Optimizer.ADAM, choices.Optimizer.YOGI)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Client(_OptimizerRecord):
  """Local training of one client."""

  section: ClassVar[str] = 'client'

  epochs: int = leaves.leaf(
    'Passes over the data of a client in one round.', default=1, at_least=1
  )
  batch_size: int | None = leaves.leaf(
    'Examples in a local mini-batch; the last one of an epoch may be smaller.',
    required=True,
    at_least=1,
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
