"""What a module of this package gives: examples, clients, and how to learn.

A task's data module has two functions. It imports no TensorFlow when it is
imported, so that mistakes are found before TensorFlow loads.

  load(task: config.Task, *, data_dir: pathlib.Path) -> DataSet
  prepare(task: config.Task, *, data_dir: pathlib.Path) -> None

`prepare` is optional. It fetches or finds the files, and raises `UsageError`
about everything that can be known without reading them in full.
"""

import dataclasses

from tff_pipeline.data import client_data


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
  """A data set, before it is dealt to clients.

  Attributes:
    train: Training examples: pooled, or by the clients that the data has.
    test: Held-out examples, pooled. Shares no example with `train`.
    num_classes: Number of logits that a model gives per label.
    objective: Loss and metrics; a name in `models.objectives`.
    preprocessing: What is done to a batch before the model; a name in
      `models.preprocessing`. Part of the saved model.
    vocabulary_size: Number of ids in x, where x holds tokens.
    ignored_labels: Labels that the accuracy leaves out, beside padding.
    client_test: The test examples by client, in the order of `train`'s clients;
      for data with clients of its own.
    is_stand_in: Whether it is generated in the place of the real data.
    uncovered: What was computed from private data without noise while loading,
      each a clause; a privacy statement does not cover it.
  """

  train: client_data.Examples | client_data.ClientData
  test: client_data.Examples
  num_classes: int
  objective: str = 'classification'
  preprocessing: str = 'none'
  vocabulary_size: int | None = None
  ignored_labels: tuple[int, ...] = ()
  client_test: client_data.ClientData | None = None
  is_stand_in: bool = False
  uncovered: tuple[str, ...] = ()
