"""The task: data, partition and model."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(leaves.Record):
  """The data, how it is dealt to clients, and the model."""

  section: ClassVar[str] = 'task'
  name: str | None = leaves.leaf(
    'Data set with its loss and metrics: a name from tff_pipeline.tasks.',
    required=True,
  )
  source: choices.Source = leaves.leaf(
    'real: the data set; stand_in: generated examples of the same shapes, for '
    'tests and smoke runs, whose accuracy means nothing.',
    default=choices.Source.REAL,
  )
  model: str | None = leaves.leaf(
    'Keras factory: a name from tff_pipeline.models or your own as '
    "package.module:function. Unset means the task's usual model."
  )
  partition: choices.Partition = leaves.leaf(
    'How pooled data is dealt to clients; natural keeps the clients that '
    'the data set comes with.',
    default=choices.Partition.NATURAL,
  )
  clients: int | None = leaves.leaf(
    'Number of clients that pooled data is dealt to.',
    used_by=('partition', (choices.Partition.IID, choices.Partition.DIRICHLET)),
    required=True,
    at_least=1,
  )
  concentration: float | None = leaves.leaf(
    'Dirichlet concentration of the label distribution of a client: small '
    'is skewed (0.1), large is alike (100).',
    used_by=('partition', (choices.Partition.DIRICHLET,)),
    required=True,
    above=0.0,
  )
  max_clients: int | None = leaves.leaf(
    'Keep only the first clients of a data set that has clients of its own, '
    'in the order of their names.',
    used_by=('partition', (choices.Partition.NATURAL,)),
    at_least=1,
  )
  max_client_examples: int | None = leaves.leaf(
    'Keep only the first training examples of each client of a data set that '
    'has clients of its own.',
    used_by=('partition', (choices.Partition.NATURAL,)),
    at_least=1,
  )
  labelling: choices.Labelling | None = leaves.leaf(
    'own: each client labels by a model of its own; shared: one model and one '
    "distribution of features for all, which is FedProx's IID data.",
    used_by=('name', ('synthetic',)),
    required=True,
  )
  alpha: float | None = leaves.leaf(
    "FedProx's alpha: how much the clients' labelling models differ.",
    used_by=('labelling', (choices.Labelling.OWN,)),
    required=True,
    at_least=0.0,
  )
  beta: float | None = leaves.leaf(
    "FedProx's beta: how much the clients' features differ.",
    used_by=('labelling', (choices.Labelling.OWN,)),
    required=True,
    at_least=0.0,
  )
