"""What `experiments.benchmark` times: models, random data, and ways to train.

Each way takes the same clients through the same epoch of the same model:

  stock         TFF's build_unweighted_fed_avg on TFF's runtime, as installed
  stock_onednn  the same with the setting of TensorFlow that all below have:
                TF_ENABLE_ONEDNN_OPTS=1, which new Intel processors have anyway
  dense         our client work on TFF's runtime
  in_process    our client work inside TensorFlow
  bare          a loop of TensorFlow over the same tensors: gradient and step,
                without shuffling, metrics, aggregation or server

`build_private` gives in_process with what a privacy mechanism does besides.
"""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.engines import engine as engines
from tff_pipeline.engines import feeds
from tff_pipeline.engines import graphs
from tff_pipeline.engines import in_process
from tff_pipeline.engines import tff_runtime
from tff_pipeline.models import char_lstm
from tff_pipeline.models import cnn
from tff_pipeline.models import functional
from tff_pipeline.models import two_nn
from tff_pipeline.privacy import mechanisms
from tff_pipeline.privacy import noise_key as noise_keys

_CLIENT_RATE = 0.1
_NO_PRIVACY = config.no_privacy()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
  """A model and the data of one client.

  Attributes:
    factory: Builds the Keras model.
    shape: Shape of an example's features.
    classes: Number of classes; for sequences also of different inputs.
    examples: Examples (sequences) of a client.
    batch_size: Examples in a step.
  """

  factory: Callable[..., tf.keras.Model]
  shape: tuple[int, ...]
  classes: int
  examples: int
  batch_size: int

  @property
  def is_text(self) -> bool:
    """Whether an example is a sequence with a label for each step."""
    return self.factory is char_lstm.build

  def model(self) -> tf.keras.Model:
    """Returns a fresh Keras model."""
    return self.factory(input_shape=self.shape, num_classes=self.classes)

  def draw(self, clients: int) -> client_data.ClientData:
    """Returns random data."""
    rng = np.random.default_rng(0)
    count = clients * self.examples
    if self.is_text:
      text = rng.integers(0, self.classes, (2, count, *self.shape))
      x, y = text.astype(np.int32)
    else:
      x = rng.normal(size=(count, *self.shape)).astype(np.float32)
      y = rng.integers(0, self.classes, count).astype(np.int32)
    offsets = np.arange(clients + 1) * self.examples
    return client_data.ClientData(client_data.Examples(x, y), offsets)


_WORKLOADS = {
  '2nn': Workload(
    factory=two_nn.build, shape=(784,), classes=10, examples=100, batch_size=20
  ),
  'cnn': Workload(
    factory=cnn.build,
    shape=(28, 28, 1),
    classes=10,
    examples=100,
    batch_size=20,
  ),
  # The vocabulary of TFF's Shakespeare: 86 characters and four marks.
  'lstm': Workload(
    factory=char_lstm.build, shape=(80,), classes=90, examples=40, batch_size=4
  ),
}


def workload(name: str, *, examples: int | None = None) -> Workload:
  """Returns a workload by its name.

  Args:
    name: 2nn, cnn or lstm.
    examples: Examples of a client, if other than usual.
  """
  found = _WORKLOADS[name]
  if examples is None:
    return found
  return dataclasses.replace(found, examples=examples)


class _StockDatasets:
  """Plain `tf.data` pipelines, made before the clock starts."""

  def __init__(self, data: client_data.ClientData, workload: Workload):
    self._datasets = [
      tf.data.Dataset.from_tensor_slices(data.client(client))
      .shuffle(workload.examples)
      .batch(workload.batch_size)
      for client in range(data.num_clients)
    ]

  def cohort(self, *, round_num: int, clients: Any) -> Any:
    """Returns the client ids."""
    del round_num
    return clients

  def dataset(self, cohort: Any, index: int) -> Any:
    """Returns the pipeline of one client of the cohort."""
    return self._datasets[cohort[index]]


def _loss() -> tf.keras.losses.Loss:
  return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _accuracy() -> dict[str, tf.keras.metrics.Metric]:
  return collections.OrderedDict(
    accuracy=tf.keras.metrics.SparseCategoricalAccuracy()
  )


def _input_spec(data: client_data.ClientData) -> dict[str, tf.TensorSpec]:
  examples = data.examples
  return collections.OrderedDict(
    x=tf.TensorSpec((None, *examples.x.shape[1:]), examples.x.dtype),
    y=tf.TensorSpec((None, *examples.y.shape[1:]), examples.y.dtype),
  )


def _schedule(workload: Workload) -> training_loop.Schedule:
  return training_loop.Schedule(
    epochs=1, batch_size=workload.batch_size, shuffle=config.Shuffle.ON
  )


def _functional(
  workload: Workload, data: client_data.ClientData
) -> tff.learning.models.FunctionalModel:
  return functional.build(
    functional.keras_model(workload.model, seed=0),
    loss=_loss(),
    metric_factory=_accuracy,
    input_spec=_input_spec(data),
  )


def _stock(
  workload: Workload,
  data: client_data.ClientData,
  threads: int,
  environment: Mapping[str, str] | None = None,
) -> engines.Engine:
  del threads
  sgd = tff.learning.optimizers.build_sgdm
  process = tff.learning.algorithms.build_unweighted_fed_avg(
    lambda: tff.learning.models.from_keras_model(
      workload.model(),
      loss=_loss(),
      input_spec=_input_spec(data),
      metrics=list(_accuracy().values()),
    ),
    sgd(_CLIENT_RATE),
    sgd(1.0),
  )
  return tff_runtime.TffRuntime(
    process, _StockDatasets(data, workload), environment=environment
  )


def _stock_as_installed(
  workload: Workload, data: client_data.ClientData, threads: int
) -> engines.Engine:
  environment = dict(os.environ)
  environment.pop('TF_ENABLE_ONEDNN_OPTS', None)  # Set by experiments.cli.
  return _stock(workload, data, threads, environment)


def _dense_process(
  workload: Workload,
  data: client_data.ClientData,
  privacy: config.Privacy = _NO_PRIVACY,
) -> tuple[tff.learning.templates.LearningProcess, feeds.Feed]:
  sgd = tff.learning.optimizers.build_sgdm
  key = noise_keys.from_seed(0)
  process = fed_avg.build(
    _functional(workload, data),
    client_optimizer=sgd(_CLIENT_RATE),
    server_optimizer=sgd(1.0),
    schedule=_schedule(workload),
    protection=mechanisms.protection(privacy),
    aggregator=mechanisms.aggregator(
      privacy, expected_cohort=data.num_clients, noise_key=key
    ),
    weighting=config.Weighting.UNIFORM,
  )
  feed = feeds.for_process(
    process, data, schedule=_schedule(workload), seed=0, noise_key=key
  )
  return process, feed


def _dense(
  workload: Workload, data: client_data.ClientData, threads: int
) -> engines.Engine:
  del threads
  return tff_runtime.TffRuntime(*_dense_process(workload, data))


def _in_process(
  workload: Workload, data: client_data.ClientData, threads: int
) -> engines.Engine:
  process, feed = _dense_process(workload, data)
  return in_process.InProcess(process, feed, lanes=threads)


def build_private(
  mechanism: str,
  workload: Workload,
  data: client_data.ClientData,
  *,
  threads: int,
) -> engines.Engine:
  """Returns in_process with a mechanism's work on clients and at the server.

  Args:
    mechanism: Value of a `config.Mechanism`.
    workload: The model and how it trains.
    data: From `workload.draw`.
    threads: Clients at the same time.
  """
  process, feed = _dense_process(workload, data, _privacy(mechanism, data))
  return in_process.InProcess(process, feed, lanes=threads)


def _privacy(mechanism: str, data: client_data.ClientData) -> config.Privacy:
  chosen = config.Mechanism(mechanism)
  if chosen is config.Mechanism.NONE:
    return _NO_PRIVACY
  adaptive = {}
  if chosen is config.Mechanism.GAUSSIAN_ADAPTIVE:
    adaptive = {
      'target_quantile': 0.5,
      'clip_learning_rate': 0.2,
      'clipped_count_stddev': max(data.num_clients / 20, 1.0),
    }
  return config.Privacy(
    mechanism=chosen,
    noise_multiplier=1.0,
    clip_norm=1.0,
    delta=1e-6,
    population=data.num_clients,
    **adaptive,
  )


class _Bare:
  """Trains clients in `threads` loops, and throws the results away."""

  def __init__(
    self, workload: Workload, data: client_data.ClientData, threads: int
  ):
    self._offsets = tf.constant(data.offsets)
    self._examples = tf.constant(data.examples.x), tf.constant(data.examples.y)
    model = _functional(workload, data)
    self._weights = [tf.constant(w) for w in model.initial_weights[0]]
    train = _bare_training(model, _input_spec(data), workload.batch_size)

    def run(weights, clients, x, y, offsets):
      def add_client(position, total):
        client = clients[position]
        rows = slice(offsets[client], offsets[client + 1])
        trained = train([*weights, x[rows], y[rows]])
        # Something has to depend on the training.
        return position + threads, total + trained[-1][0]

      return [
        tf.while_loop(
          lambda position, _: position < tf.size(clients),
          add_client,
          (tf.constant(lane), tf.constant(0.0)),
          parallel_iterations=1,
        )
        for lane in range(threads)
      ]

    spec = tf.nest.map_structure(
      lambda t: tf.TensorSpec(t.shape, t.dtype),
      (self._weights, (), *self._examples, self._offsets),
    )
    cohort_spec = tf.TensorSpec([None], tf.int64)
    self._run = graphs.concurrent_function(
      run, (spec[0], cohort_spec, *spec[2:])
    )

  def __enter__(self) -> '_Bare':
    return self

  def __exit__(self, *exception: Any) -> None:
    pass

  def initialize(self) -> Any:
    """Returns the weights that every client starts from."""
    return self._weights

  def round(
    self, state: Any, *, round_num: int, clients: np.ndarray
  ) -> engines.Round:
    """Trains the clients; the state stays what it was."""
    del round_num
    cohort = tf.constant(clients, tf.int64)
    found = self._run(state, cohort, *self._examples, self._offsets)
    tf.nest.map_structure(lambda t: t.numpy(), found)
    return engines.Round(state=state, metrics={})


def _bare_training(
  model: tff.learning.models.FunctionalModel,
  input_spec: dict[str, tf.TensorSpec],
  batch_size: int,
) -> graphs.Graph:
  """Returns the graph (*weights, x, y) -> trained weights of one epoch."""
  weights_type = [(w.dtype, w.shape) for w in model.initial_weights[0]]

  # A functional model of Keras exists in TFF's graphs only.
  @tff.tensorflow.computation(
    tff.types.to_type(weights_type),
    *map(tff.types.tensorflow_to_type, input_spec.values()),
  )
  def train(weights, x, y):
    count = tf.shape(x)[0]

    def step(first, trainable):
      rows = slice(first, first + batch_size)
      with tf.GradientTape() as tape:
        tape.watch(trainable)
        output = model.predict_on_batch((trainable, ()), x[rows])
        loss = model.loss(output=output, label=y[rows])
      gradients = map(tf.convert_to_tensor, tape.gradient(loss, trainable))
      return first + batch_size, tuple(
        w - _CLIENT_RATE * g for w, g in zip(trainable, gradients, strict=True)
      )

    return tf.while_loop(
      lambda first, _: first < count,
      step,
      (tf.constant(0), tuple(weights)),
      parallel_iterations=1,
    )[1]

  return graphs.Graph(train)


_WAYS = {
  'stock': _stock_as_installed,
  'stock_onednn': _stock,
  'dense': _dense,
  'in_process': _in_process,
  'bare': _Bare,
}
WAYS = tuple(_WAYS)


def build(
  way: str,
  workload: Workload,
  data: client_data.ClientData,
  *,
  threads: int,
) -> Any:
  """Returns an engine, or what has an engine's `initialize` and `round`.

  Args:
    way: One of `WAYS`.
    workload: The model and how it trains.
    data: From `workload.draw`.
    threads: Clients at the same time, in_process and bare.
  """
  return _WAYS[way](workload, data, threads)
