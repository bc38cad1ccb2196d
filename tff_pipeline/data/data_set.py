"""What a module of this package gives: examples, clients, and how to learn.

A task's data module has two functions. It imports no TensorFlow when it is
imported, so that mistakes are found before TensorFlow loads.

  load(task: config.Task, *, data_dir: pathlib.Path) -> DataSet
  prepare(task: config.Task, *, data_dir: pathlib.Path) -> None

`prepare` is optional. It fetches or finds the files, and raises `UsageError`
about everything that can be known without reading them in full.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

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
    class_names: What the labels of the user's own data are called, in the order
      of the logits; empty if they have no names.
    feature_names: What the features of the user's own data are called; empty if
      they have no names.
    encoding: How features and labels of the user's own data were made, as plain
      values ready for JSON.
  """

  train: client_data.Examples | client_data.Clients
  test: client_data.Examples
  num_classes: int
  objective: str = 'classification'
  preprocessing: str = 'none'
  vocabulary_size: int | None = None
  ignored_labels: tuple[int, ...] = ()
  client_test: client_data.ClientData | None = None
  is_stand_in: bool = False
  uncovered: tuple[str, ...] = ()
  class_names: tuple[str, ...] = ()
  feature_names: tuple[str, ...] = ()
  encoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)
