"""The whole experiment, and what is derived from it."""

import dataclasses

from tff_pipeline.config import attack as attack_leaves
from tff_pipeline.config import checks
from tff_pipeline.config import choices
from tff_pipeline.config import compression as compression_leaves
from tff_pipeline.config import leaves
from tff_pipeline.config import personalization as personal_leaves
from tff_pipeline.config import privacy as privacy_leaves
from tff_pipeline.config import task as task_leaves
from tff_pipeline.config import training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(leaves.Record):
  """A whole experiment, valid by construction.

  Attributes are the sub-records and the top-level leaves; see `--help`.
  """

  task: task_leaves.Task
  cohort: training.Cohort
  client: training.Client
  server: training.Server
  privacy: privacy_leaves.Privacy
  algorithm: training.Algorithm = training.Algorithm()
  compression: compression_leaves.Compression = compression_leaves.Compression()
  attack: attack_leaves.Attack = attack_leaves.Attack()
  personalization: personal_leaves.Personalization = (
    personal_leaves.Personalization()
  )
  rounds: int | None = leaves.leaf('Rounds of federated training.', at_least=1)
  seed: int = leaves.leaf(
    'Decides partition, initial weights, cohorts and shuffles; never DP noise.',
    default=0,
    at_least=0,
  )
  evaluate_every: int = leaves.leaf(
    'Rounds between evaluations on held-out data; the last round is always '
    'evaluated.',
    default=1,
    at_least=1,
  )
  evaluate_clients_every: int | None = leaves.leaf(
    'Rounds between measurements of the accuracy on the data of each client; '
    'the last round is always measured. Unset means never. Its columns are '
    'named unnoised_client_*.',
    at_least=1,
  )
  checkpoint_every: int = leaves.leaf(
    'Rounds between checkpoints; the last round is always saved.',
    default=5,
    at_least=1,
  )
  engine: choices.EngineName = leaves.leaf(
    'What executes a round: in_process, inside TensorFlow and several times '
    "faster; or tff_runtime, TFF's worker process, the reference.",
    default=choices.EngineName.IN_PROCESS,
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    for check in checks.CROSS_CHECKS:
      check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
  """The leaves that epsilon depends on, beside what was released.

  The seed decides who took part, which matters where each client has a
  guarantee of its own.
  """

  privacy: privacy_leaves.Privacy
  cohort: training.Cohort
  client: training.Client
  algorithm: training.Algorithm
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
