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
DEALT = (
  'the clients that the data set itself has: examples of one of them were '
  'dealt to several clients of this run (task.partition)'
)


@dataclasses.dataclass(frozen=True)
class _Entry:
  """A row of the table.

  Attributes:
    data: Module of `tff_pipeline.data`.
    models: Modules of `tff_pipeline.models`; the first one is the usual model.
  """

  data: str
  models: tuple[str, ...]


_DIGIT_IMAGES = (
  'cnn',
  'two_nn',
  'cnn_dropout',
  'softmax_regression',
  'lenet5',
  'tfp_cnn',
  'wide_mlp',
)
_EMNIST = ('cnn_dropout', 'cnn', 'two_nn', 'autoencoder')

TASKS = {
  'cifar10': _Entry('cifar10', ('resnet18', 'cnn')),
  'cifar100': _Entry('cifar100', ('resnet18',)),
  'digits': _Entry('digits', ('mlp', 'softmax_regression')),
  'emnist_characters': _Entry('emnist', _EMNIST),
  'emnist_digits': _Entry('emnist', _EMNIST),
  'fashion_mnist': _Entry('fashion_mnist', _DIGIT_IMAGES),
  'har': _Entry('har', ('cnn_1d', 'mlp', 'softmax_regression')),
  'heart_disease': _Entry('heart_disease', ('softmax_regression', 'mlp')),
  'mnist': _Entry('mnist', _DIGIT_IMAGES),
  'shakespeare': _Entry('shakespeare', ('char_lstm',)),
  'stackoverflow_tags': _Entry('stackoverflow_tags', ('logistic_regression',)),
  'stackoverflow_words': _Entry('stackoverflow_words', ('word_lstm',)),
  'synthetic': _Entry('synthetic', ('softmax_regression',)),
}

# Models whose input need not be an image.
_FLAT = ('two_nn', 'softmax_regression', 'wide_mlp')

# Models that learn to give their input back.
_RECONSTRUCTING = ('autoencoder',)

_FOR_TABLES = ('mlp', 'softmax_regression', 'two_nn')
_FOR_IMAGES = ('cnn', 'cnn_dropout', *_FOR_TABLES)
# The user's own data, by the format of its file.
TASKS |= {
  'csv': _Entry('files.delimited', _FOR_TABLES),
  'parquet': _Entry('files.parquet', _FOR_TABLES),
  'npz': _Entry('files.npz', (*_FOR_TABLES, 'cnn', 'cnn_dropout', 'cnn_1d')),
  'image_folder': _Entry('files.image_folder', _FOR_IMAGES),
  'tff_sqlite': _Entry('files.tff_sqlite', _FOR_TABLES),
}


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
    encoding: How features and labels were made from the user's own data, as
      plain values; empty for other data.
    attacked_test: Held-out examples with the label that a simulated attack
      wants; `None` if there is no such attack.
  """

  train: 'client_data.Clients'
  test: 'client_data.Examples'
  model_factory: Callable[[], 'tf.keras.Model']
  loss_factory: Callable[[], 'tf.keras.losses.Loss']
  metric_factory: Callable[[], 'dict[str, tf.keras.metrics.Metric]']
  input_spec: 'dict[str, tf.TensorSpec]'
  client_test: 'client_data.ClientData | None' = None
  label: str | None = None
  uncovered: tuple[str, ...] = ()
  encoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  attacked_test: 'client_data.Examples | None' = None


def check(task: config.Task) -> None:
  """Raises `UsageError` for an unknown task or model; loads nothing heavy."""
  validate.check_choice('task.name', task.name, tuple(TASKS))
  model = task.model or TASKS[task.name].models[0]
  if ':' in model:
    return
  validate.check_choice('task.model', model, TASKS[task.name].models)
  if task.components is not None and model not in _FLAT:
    raise validate.error(
      'task.model',
      expected=f'one of {", ".join(_FLAT)} with --task.components='
      f'{task.components}: a projected image is no image any more',
      found=model,
    )


def pooled(task: config.Task) -> config.Task:
  """Returns the task with all of its training examples in one place."""
  if task.only_client is not None:
    return task  # In one place already.
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

  from tff_pipeline.data import defects
  from tff_pipeline.models import objectives
  from tff_pipeline.models import preprocessing

  loaded = load(task, data_dir=data_dir)
  defects.check(loaded, name=task.name)
  if loaded.is_stand_in:
    _log.warning('The data of %s is a %s.', task.name, STAND_IN)
  train, client_test = clients(loaded, task=task, seed=seed)
  name = task.model or TASKS[task.name].models[0]
  test, objective_name = loaded.test, loaded.objective
  if name in _RECONSTRUCTING:
    objective_name = 'reconstruction'
    train, test, client_test = map(_self_labelled, (train, test, client_test))
  objective = objectives.build(
    objective_name, ignored_labels=loaded.ignored_labels
  )
  input_spec = collections.OrderedDict(
    (key, tf.TensorSpec((None, *values.shape[1:]), values.dtype))
    for key, values in (('x', train.prototype.x), ('y', train.prototype.y))
  )
  return Task(
    train=train,
    test=test,
    model_factory=preprocessing.wrap(
      loaded.preprocessing,
      functools.partial(_model, _model_factory(name), loaded),
      input_spec=input_spec['x'],
      vocabulary_size=loaded.vocabulary_size,
    ),
    loss_factory=objective.loss_factory,
    metric_factory=objective.metric_factory,
    input_spec=input_spec,
    client_test=client_test,
    label=STAND_IN if loaded.is_stand_in else None,
    uncovered=loaded.uncovered
    + ((DEALT,) if _is_redealt(loaded, task) else ()),
    encoding=loaded.encoding,
  )


def load(
  task: config.Task, *, data_dir: str | os.PathLike[str] | None = None
) -> 'data_set.DataSet':
  """Returns a task's data before it is dealt; needs no TensorFlow for most.

  Raises:
    UsageError: If a name is unknown, or a file is missing or bad.
  """
  from tff_pipeline.data import locations
  from tff_pipeline.data import projection

  prepare(task, data_dir=data_dir)
  loaded = _source(task).load(task, data_dir=locations.data_dir(data_dir))
  if task.components is None:
    return loaded
  return projection.principal_components(loaded, task.components)


def _source(task: config.Task) -> types.ModuleType:
  return importlib.import_module(f'tff_pipeline.data.{TASKS[task.name].data}')


def vocabulary(task: config.Task) -> str | None:
  """Returns the characters of a task's tokens, the first of which has id 1.

  `None` if its tokens are no characters, or it has none.
  """
  return getattr(_source(task), 'VOCABULARY', None)


def clients(
  loaded: 'data_set.DataSet', *, task: config.Task, seed: int
) -> 'tuple[client_data.Clients, client_data.ClientData | None]':
  """Returns train and test examples by client, as the partition has them.

  Args:
    loaded: What `load` returned.
    task: The task's leaves.
    seed: The experiment's seed; decides the partition.

  Raises:
    UsageError: If the data cannot be dealt so.
  """
  from tff_pipeline.data import client_data

  train, test = _dealt(loaded, task=task, seed=seed)
  if task.only_client is None:
    return train, test
  if task.only_client >= train.num_clients:
    raise validate.error(
      'task.only_client',
      expected=f'below {train.num_clients}, the number of clients',
      found=task.only_client,
    )
  return tuple(
    None if part is None else client_data.only(part, task.only_client)
    for part in (train, test)
  )


def _dealt(
  loaded: 'data_set.DataSet', *, task: config.Task, seed: int
) -> 'tuple[client_data.Clients, client_data.ClientData | None]':
  """Returns train and test examples by client, all clients of them."""
  from tff_pipeline.data import client_data
  from tff_pipeline.data import partition
  from tff_pipeline.data import streamed

  train, test = loaded.train, loaded.client_test
  natural = task.partition is config.Partition.NATURAL
  if isinstance(train, streamed.StreamedClients):
    if natural and task.only_client is None:
      return train, test
    train = train.in_memory()  # Dealing needs all examples.
  if isinstance(train, client_data.ClientData):
    train = client_data.first(
      train, clients=task.max_clients, examples=task.max_client_examples
    )
    if test is not None:
      test = client_data.first(test, clients=task.max_clients)
    if natural:
      return train, test
    if task.partition is config.Partition.GROUPED:
      return partition.group(train, test, task=task)
    train = train.examples
  else:
    _check_no_limits(task)
  return partition.deal(train, task=task, seed=seed), None


def _is_redealt(loaded: 'data_set.DataSet', task: config.Task) -> bool:
  """Returns whether one client of the data has become several."""
  from tff_pipeline.data import client_data

  return (
    not isinstance(loaded.train, client_data.Examples)
    and task.partition
    not in (config.Partition.NATURAL, config.Partition.GROUPED)
    and task.clients != 1
  )


def _check_no_limits(task: config.Task) -> None:
  for leaf in ('max_clients', 'max_client_examples'):
    value = getattr(task, leaf)
    if value is not None:
      raise validate.error(
        f'task.{leaf}',
        expected=f'no value, since {task.name} has no clients of its own',
        found=value,
      )


def _self_labelled(data: Any) -> Any:
  """Returns images, as examples or as clients, whose labels are their pixels.

  Bright on dark, as TFF's autoencoder has them: EMNIST is dark on bright.
  """
  from tff_pipeline.data import client_data

  if data is None:
    return None
  if isinstance(data, client_data.ClientData):
    return client_data.ClientData(_self_labelled(data.examples), data.offsets)
  x = 255 - data.x
  return client_data.Examples(x, x.reshape(len(x), -1))


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
