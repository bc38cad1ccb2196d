"""Tiny models of each kind, data for them, and ways to run graphs of them."""

import collections
from collections.abc import Callable, Sequence
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.client_work import training_loop
from tff_pipeline.models import functional

CLASSES = 4
_WORDS = 7
_LENGTH = 5
_layers = tf.keras.layers


def dense() -> tf.keras.Model:
  return tf.keras.Sequential(
    [
      tf.keras.Input((6,)),
      _layers.Dense(5, activation='relu'),
      _layers.Dense(CLASSES),
    ]
  )


def wide() -> tf.keras.Model:
  """Enough weights for statistics of the noise: 5,204."""
  return tf.keras.Sequential([tf.keras.Input((1300,)), _layers.Dense(CLASSES)])


def conv() -> tf.keras.Model:
  return tf.keras.Sequential(
    [
      tf.keras.Input((6, 6, 1)),
      _layers.Conv2D(3, 3, activation='relu'),
      _layers.MaxPool2D(),
      _layers.Flatten(),
      _layers.Dense(CLASSES),
    ]
  )


def embedding() -> tf.keras.Model:
  return tf.keras.Sequential(
    [
      tf.keras.Input((_LENGTH,), dtype=tf.int32),
      _layers.Embedding(_WORDS, 3),
      _layers.GlobalAveragePooling1D(),
      _layers.Dense(CLASSES),
    ]
  )


def lstm() -> tf.keras.Model:
  return tf.keras.Sequential(
    [
      tf.keras.Input((_LENGTH,), dtype=tf.int32),
      _layers.Embedding(_WORDS, 3),
      _layers.LSTM(4),
      _layers.Dense(CLASSES),
    ]
  )


def dropout() -> tf.keras.Model:
  return tf.keras.Sequential(
    [
      tf.keras.Input((6,)),
      _layers.Dense(20),
      _layers.Dropout(0.5),
      _layers.Dense(CLASSES),
    ]
  )


def loss() -> tf.keras.losses.Loss:
  return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def build(
  factory: Callable[[], tf.keras.Model], seed: int = 0
) -> tff.learning.models.FunctionalModel:
  """Returns the functional form; built once, for it has no state."""
  model = functional.keras_model(factory, seed=seed)
  return functional.build(
    model,
    loss=loss(),
    metric_factory=lambda: collections.OrderedDict(
      accuracy=tf.keras.metrics.SparseCategoricalAccuracy()
    ),
    input_spec=collections.OrderedDict(
      x=tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype),
      y=tf.TensorSpec((None,), tf.int32),
    ),
  )


def examples(
  model: tff.learning.models.FunctionalModel, size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Returns random x and y that fit the model's input."""
  rng = np.random.default_rng([size, seed])
  spec = model.input_spec['x']
  shape = (size, *spec.shape[1:])
  if spec.dtype.is_integer:
    x = rng.integers(0, _WORDS, shape).astype(np.int32)
  else:
    x = rng.normal(size=shape).astype(np.float32)
  return x, rng.integers(0, CLASSES, size).astype(np.int32)


def element(
  x: np.ndarray,
  y: np.ndarray,
  *,
  key: Sequence[int] = (1, 2),
  noise_key: Sequence[int] | None = None,
) -> collections.OrderedDict[str, np.ndarray]:
  """Returns a client's one element."""
  values = collections.OrderedDict(x=x, y=y, key=np.array(key, np.int64))
  if noise_key is not None:
    values[training_loop.NOISE_KEY] = np.array(noise_key, np.int64)
  return values


def evaluate(build_graph: Callable[[], Any]) -> Any:
  """Builds tensors in a graph of their own, and returns their values."""
  with tf.Graph().as_default() as graph:
    tensors = build_graph()
    with tf.compat.v1.Session(graph=graph) as session:
      return session.run(tensors)


class Trainer:
  """Trains one client after another in a single graph."""

  def __init__(
    self,
    model: tff.learning.models.FunctionalModel,
    gradient: training_loop.GradientFn,
    *,
    optimizer: tff.learning.optimizers.Optimizer | None = None,
    **schedule: Any,
  ):
    defaults = {'epochs': 1, 'batch_size': 4, 'shuffle': config.Shuffle.OFF}
    planned = training_loop.Schedule(**(defaults | schedule))
    graph = tf.Graph()
    with graph.as_default():
      self._weights, self._element = tf.nest.map_structure(
        lambda s: tf.compat.v1.placeholder(s.dtype, s.shape),
        (
          tuple(
            tf.TensorSpec(w.shape, w.dtype) for w in model.initial_weights[0]
          ),
          training_loop.element_spec(
            model,
            {training_loop.NOISE_KEY: training_loop.KEY_SPEC}
            | planned.extra_spec,
          ),
        ),
      )
      self._results = training_loop.train(
        model,
        gradient,
        optimizer=optimizer or tff.learning.optimizers.build_sgdm(1.0),
        schedule=planned,
        weights=(self._weights, ()),
        element=self._element,
      )
    self._initial = model.initial_weights[0]
    self._session = tf.compat.v1.Session(graph=graph)

  def __call__(
    self, client: Any, weights: Sequence[np.ndarray] | None = None
  ) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Returns the trained weights and the unfinalized metrics."""
    client = {training_loop.NOISE_KEY: [0, 0], **client}
    feed = {self._element[name]: value for name, value in client.items()}
    feed |= dict(zip(self._weights, weights or self._initial, strict=True))
    trained, metrics = self._session.run(self._results, feed)
    return list(trained), metrics
