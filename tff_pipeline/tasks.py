"""name -> Task: client data, held-out data, model factory, loss and metrics.

The table holds module names, so that a name can be checked before TensorFlow
loads. `data.data_set` says what a module of `tff_pipeline.data` gives; one of
`tff_pipeline.models` gives `build(*, input_shape, num_classes)`.
"""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import functools
import importlib
import inspect
import logging
import os
import types
import typing
from typing import Any

from tff_pipeline import config
from tff_pipeline import validate

if typing.TYPE_CHECKING:
  import tensorflow as tf

  from tff_pipeline.data import client_data
  from tff_pipeline.data import data_set

_log = logging.getLogger(__name__)

STAND_IN = 'synthetic stand-in'


@dataclasses.dataclass(frozen=True)
class _Entry:
  """A row of the table.

  Attributes:
    data: Module of `tff_pipeline.data`.
    models: Modules of `tff_pipeline.models`; the first one is the usual model.
  """

  data: str
  models: tuple[str, ...]


TASKS = {'digits': _Entry('digits', ('mlp', 'softmax_regression'))}


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """Everything about a learning problem that is not the algorithm.

  Attributes:
    train: The clients' examples.
    test: Held-out examples, pooled.
    model_factory: Builds a fresh uncompiled Keras model.
    loss_factory: Builds the loss, averaged over a batch.
    metric_factory: Builds fresh Keras metrics by name.
    input_spec: Tensor specs of a batch under the keys x and y.
    client_test: Held-out examples by client, in the order of `train`; `None`
      if clients have none of their own.
    label: What the examples are, if not the real data.
    uncovered: What was computed from private data without noise, each a clause.
  """

  train: 'client_data.ClientData'
  test: 'client_data.Examples'
  model_factory: Callable[[], 'tf.keras.Model']
  loss_factory: Callable[[], 'tf.keras.losses.Loss']
  metric_factory: Callable[[], 'dict[str, tf.keras.metrics.Metric]']
  input_spec: 'dict[str, tf.TensorSpec]'
  client_test: 'client_data.ClientData | None' = None
  label: str | None = None
  uncovered: tuple[str, ...] = ()


def check(task: config.Task) -> None:
  """Raises `UsageError` for an unknown task or model; loads nothing heavy."""
  validate.check_choice('task.name', task.name, tuple(TASKS))
  if task.model is None or ':' in task.model:
    return
  validate.check_choice('task.model', task.model, TASKS[task.name].models)


def pooled(task: config.Task) -> config.Task:
  """Returns the task with all of its training examples in one place."""
  dealing = {
    field.name: None
    for field in dataclasses.fields(task)
    if (field.metadata['rule'].used_by or ('',))[0] == 'partition'
  }
  return dataclasses.replace(
    task, **dealing | {'partition': config.Partition.IID, 'clients': 1}
  )


def prepare(
  task: config.Task, *, data_dir: str | os.PathLike[str] | None = None
) -> None:
  """Finds or fetches the task's files; TensorFlow is not imported for it.

  Args:
    task: The task's leaves.
    data_dir: What `--data_dir` was set to.

  Raises:
    UsageError: If a file is missing, or is not what it should be.
  """
  from tff_pipeline.data import locations

  check(task)
  prepare_files = getattr(_source(task), 'prepare', None)
  if prepare_files is not None and task.source is config.Source.REAL:
    prepare_files(task, data_dir=locations.data_dir(data_dir))


def build(
  task: config.Task,
  *,
  seed: int,
  data_dir: str | os.PathLike[str] | None = None,
) -> Task:
  """Loads the data, deals it to clients and resolves the model.

  Args:
    task: The task's leaves.
    seed: The experiment's seed; decides the partition.
    data_dir: What `--data_dir` was set to.

  Returns:
    The task. Train and test examples are disjoint.

  Raises:
    UsageError: If a name is unknown, a file is missing or bad, or the data
      cannot be dealt so.
  """
  import tensorflow as tf  # Late: `check` must not pay for it.

  from tff_pipeline.data import locations
  from tff_pipeline.models import objectives
  from tff_pipeline.models import preprocessing

  prepare(task, data_dir=data_dir)
  loaded = _source(task).load(task, data_dir=locations.data_dir(data_dir))
  if loaded.is_stand_in:
    _log.warning('The data of %s is a %s.', task.name, STAND_IN)
  train, client_test = _clients(loaded, task=task, seed=seed)
  name = task.model or TASKS[task.name].models[0]
  objective = objectives.build(
    loaded.objective, ignored_labels=loaded.ignored_labels
  )
  input_spec = collections.OrderedDict(
    (key, tf.TensorSpec((None, *values.shape[1:]), values.dtype))
    for key, values in (('x', train.examples.x), ('y', train.examples.y))
  )
  return Task(
    train=train,
    test=loaded.test,
    model_factory=preprocessing.wrap(
      loaded.preprocessing,
      functools.partial(_model, _model_factory(name), loaded),
      input_spec=input_spec['x'],
    ),
    loss_factory=objective.loss_factory,
    metric_factory=objective.metric_factory,
    input_spec=input_spec,
    client_test=client_test,
    label=STAND_IN if loaded.is_stand_in else None,
    uncovered=loaded.uncovered,
  )


def _source(task: config.Task) -> types.ModuleType:
  return importlib.import_module(f'tff_pipeline.data.{TASKS[task.name].data}')


def _clients(
  loaded: 'data_set.DataSet', *, task: config.Task, seed: int
) -> 'tuple[client_data.ClientData, client_data.ClientData | None]':
  """Returns train and test examples by client, as the partition has them."""
  from tff_pipeline.data import client_data
  from tff_pipeline.data import partition

  train, test = loaded.train, loaded.client_test
  if isinstance(train, client_data.ClientData):
    if task.partition is config.Partition.NATURAL:
      if task.max_clients is not None and test is not None:
        test = client_data.first(test, clients=task.max_clients)
      kept = client_data.first(
        train, clients=task.max_clients, examples=task.max_client_examples
      )
      return kept, test
    train = train.examples
  if train.y.ndim != 1 and task.partition is config.Partition.DIRICHLET:
    raise validate.error(
      'task.partition',
      expected=f'{config.Partition.NATURAL} or {config.Partition.IID}: an '
      f'example of {task.name} has no single label to skew',
      found=task.partition,
    )
  return partition.deal(train, task=task, seed=seed), None


def _model(
  factory: Callable[..., 'tf.keras.Model'],
  loaded: 'data_set.DataSet',
  input_shape: tuple[int, ...],
) -> 'tf.keras.Model':
  offered = {'vocabulary_size': loaded.vocabulary_size}
  return factory(
    input_shape=input_shape,
    num_classes=loaded.num_classes,
    **_wanted(factory, offered),
  )


def _wanted(
  factory: Callable[..., Any], offered: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the offered arguments that a factory names."""
  named = inspect.signature(factory).parameters
  return {name: value for name, value in offered.items() if name in named}


def _model_factory(name: str) -> Callable[..., Any]:
  """Returns a built-in factory, or the user's own `package.module:function`."""
  module_name, _, function = name.partition(':')
  if not function:
    module_name, function = f'tff_pipeline.models.{name}', 'build'
  try:
    return getattr(importlib.import_module(module_name), function)
  except (ImportError, AttributeError) as e:
    raise validate.error(
      'task.model',
      expected='an importable package.module:function',
      found=f'{name} ({e})',
    ) from e
