"""name -> Task: client data, held-out data, model factory, loss and metrics.

The table holds module names, so that a name can be checked before TensorFlow
loads. A module of `tff_pipeline.data` gives `load() -> (train, test)`,
`INPUT_SHAPE` and `NUM_CLASSES`; one of `tff_pipeline.models` gives `build`.
"""

import collections
from collections.abc import Callable
import dataclasses
import importlib
import typing
from typing import Any

from tff_pipeline import config
from tff_pipeline import validate

if typing.TYPE_CHECKING:
  import tensorflow as tf

  from tff_pipeline.data import client_data


@dataclasses.dataclass(frozen=True)
class _Entry:
  data: str
  models: tuple[str, ...]  # The first one is the default.


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
  """

  train: 'client_data.ClientData'
  test: 'client_data.Examples'
  model_factory: Callable[[], 'tf.keras.Model']
  loss_factory: Callable[[], 'tf.keras.losses.Loss']
  metric_factory: Callable[[], 'dict[str, tf.keras.metrics.Metric]']
  input_spec: 'dict[str, tf.TensorSpec]'


def check(task: config.Task) -> None:
  """Raises `UsageError` for an unknown task or model; loads nothing heavy."""
  validate.check_choice('task.name', task.name, tuple(TASKS))
  if task.model is None or ':' in task.model:
    return
  validate.check_choice('task.model', task.model, TASKS[task.name].models)


def build(task: config.Task, *, seed: int) -> Task:
  """Loads the data, deals it to clients and resolves the model.

  Args:
    task: The task's leaves.
    seed: The experiment's seed; decides the partition.

  Returns:
    The task. Train and test examples are disjoint.

  Raises:
    UsageError: If a name is unknown, or the data cannot be dealt so.
  """
  import tensorflow as tf  # Late: `check` must not pay for it.

  from tff_pipeline.data import partition

  check(task)
  entry = TASKS[task.name]
  source = importlib.import_module(f'tff_pipeline.data.{entry.data}')
  factory = _model_factory(task.model or entry.models[0])
  train, test = source.load()
  return Task(
    train=partition.deal(train, task=task, seed=seed),
    test=test,
    model_factory=lambda: factory(
      input_shape=source.INPUT_SHAPE, num_classes=source.NUM_CLASSES
    ),
    loss_factory=lambda: tf.keras.losses.SparseCategoricalCrossentropy(
      from_logits=True
    ),
    metric_factory=lambda: collections.OrderedDict(
      accuracy=tf.keras.metrics.SparseCategoricalAccuracy()
    ),
    input_spec=collections.OrderedDict(
      x=tf.TensorSpec((None,) + train.x.shape[1:], train.x.dtype),
      y=tf.TensorSpec((None,) + train.y.shape[1:], train.y.dtype),
    ),
  )


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
