"""Pooled examples -> clients, by the partitioner that the task names."""

from collections.abc import Callable

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data.partition import features
from tff_pipeline.data.partition import labels as by_label
from tff_pipeline.data.partition import sizes

# Separates this use of the experiment's seed from cohorts and weights.
_STREAM = 0x9A27
_Deal = Callable[
  [client_data.Examples, config.Task, np.random.Generator], list[np.ndarray]
]


def deal(
  examples: client_data.Examples, *, task: config.Task, seed: int
) -> client_data.ClientData:
  """Deals pooled examples to `task.clients` clients, none of them empty.

  Args:
    examples: The pooled training examples.
    task: Gives `partition`, `clients` and what the partition needs.
    seed: The experiment's seed.

  Returns:
    Client data; every example is one client's. Clients differ in size by one
    example at most under iid, dirichlet and feature_skew.

  Raises:
    UsageError: If there are fewer examples than the clients are to have, if
      the labels are not what the partition needs, or if it asks for natural
      clients that pooled data does not have.
  """
  _check(examples, task)
  rng = np.random.default_rng([seed, _STREAM])
  rows = _PARTITIONERS[task.partition](examples, task, rng)
  data = client_data.from_assignment(examples, rows)
  _check_smallest(data.client_sizes.min(), task)
  if task.partition is config.Partition.FEATURE_SKEW:
    data = features.skew(
      data, transform=task.transform, strength=task.transform_strength, rng=rng
    )
  return data


def _least(task: config.Task) -> int:
  return 1 if task.min_examples is None else task.min_examples


def _check(examples: client_data.Examples, task: config.Task) -> None:
  if task.partition not in _PARTITIONERS:
    raise validate.error(
      'task.partition',
      expected='one of '
      + ', '.join(_PARTITIONERS)
      + ', since this data set has no clients of its own',
      found=task.partition,
    )
  if task.clients * _least(task) > len(examples):
    raise validate.error(
      'task.clients',
      expected=f'at most {len(examples) // _least(task)}, since there are '
      f'{len(examples)} training examples',
      found=task.clients,
      remedy='--task.min_examples=0 allows clients without any',
    )
  needs_labels = (
    config.Partition.DIRICHLET,
    config.Partition.LABEL_DIRICHLET,
    config.Partition.SHARDS,
    config.Partition.LABEL_COUNT,
  )
  one_class = examples.y.ndim == 1 and examples.y.dtype.kind in 'iub'
  if task.partition in needs_labels and not one_class:
    raise validate.error(
      'task.partition',
      expected='iid, quantity_skew or feature_skew, since the labels of this '
      'data set are not one class for each example',
      found=task.partition,
    )
  if task.partition is config.Partition.SHARDS:
    most = len(examples) // task.clients
    if task.shards_per_client > most:
      raise validate.error(
        'task.shards_per_client',
        expected=f'at most {most}, so that no shard of {len(examples)} '
        'examples is empty',
        found=task.shards_per_client,
      )


def _check_smallest(size: int, task: config.Task) -> None:
  if size < _least(task):
    raise validate.error(
      'task.min_examples',
      expected=f'at most {size}, the examples of the smallest client under '
      f'--task.partition={task.partition}',
      found=_least(task),
    )


def _iid(
  examples: client_data.Examples, task: config.Task, rng: np.random.Generator
) -> list[np.ndarray]:
  return sizes.iid(len(examples), clients=task.clients, rng=rng)


def _dirichlet(
  examples: client_data.Examples, task: config.Task, rng: np.random.Generator
) -> list[np.ndarray]:
  return by_label.dirichlet(
    examples.y,
    clients=task.clients,
    concentration=task.concentration,
    rng=rng,
  )


def _label_dirichlet(
  examples: client_data.Examples, task: config.Task, rng: np.random.Generator
) -> list[np.ndarray]:
  return by_label.label_dirichlet(
    examples.y,
    clients=task.clients,
    concentration=task.concentration,
    least=_least(task),
    rng=rng,
  )


def _shards(
  examples: client_data.Examples, task: config.Task, rng: np.random.Generator
) -> list[np.ndarray]:
  return by_label.shards(
    examples.y,
    clients=task.clients,
    shards_per_client=task.shards_per_client,
    rng=rng,
  )


def _label_count(
  examples: client_data.Examples, task: config.Task, rng: np.random.Generator
) -> list[np.ndarray]:
  return by_label.label_count(
    examples.y,
    clients=task.clients,
    labels_per_client=task.labels_per_client,
    rng=rng,
  )


def _quantity_skew(
  examples: client_data.Examples, task: config.Task, rng: np.random.Generator
) -> list[np.ndarray]:
  return sizes.quantity_skew(
    len(examples),
    clients=task.clients,
    sigma=task.size_sigma,
    least=_least(task),
    rng=rng,
  )


_PARTITIONERS: dict[config.Partition, _Deal] = {
  config.Partition.IID: _iid,
  config.Partition.DIRICHLET: _dirichlet,
  config.Partition.LABEL_DIRICHLET: _label_dirichlet,
  config.Partition.SHARDS: _shards,
  config.Partition.LABEL_COUNT: _label_count,
  config.Partition.QUANTITY_SKEW: _quantity_skew,
  config.Partition.FEATURE_SKEW: _iid,
}
