"""A small task, unequal clients, and rounds of any process on an engine."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tff_pipeline import config
from tff_pipeline.algorithms import table
from tff_pipeline.client_work import protection as protections
from tff_pipeline.data import client_data
from tff_pipeline.engines import client_store
from tff_pipeline.engines import engine as engines
from tff_pipeline.models import functional

KEY = (5, -6)
SIZES = (7, 1, 12, 4, 9, 20)
# Unequal cohorts, an empty one, and one client alone.
COHORTS = ([0, 2, 3, 5], [1], [], [0, 1, 2, 3, 4])
# Clients 0 and 3 come back; 4 does after an empty round; 5 never takes part.
RETURNING = ([0, 2, 3], [1], [], [0, 3, 4], [4], [0, 1, 2, 3, 4])
CLIENT = config.Client(epochs=2, batch_size=5, learning_rate=0.1, shuffle='off')
SERVER = config.Server(learning_rate=1.0)


def data(scale: float = 1.0) -> client_data.ClientData:
  """Returns clients whose inputs and labels differ."""
  model = small_models.build(small_models.dense)
  parts = [
    small_models.examples(model, size, seed=i) for i, size in enumerate(SIZES)
  ]
  x = np.concatenate([x + 0.3 * i for i, (x, _) in enumerate(parts)])
  y = np.concatenate([y for _, y in parts])
  offsets = np.concatenate([[0], np.cumsum(SIZES)]).astype(np.int64)
  x = (scale * x).astype(np.float32)
  return client_data.ClientData(client_data.Examples(x, y), offsets)


def stock_model() -> tff.learning.models.VariableModel:
  """Returns the model of `build` for TFF's own builders."""
  model = small_models.build(small_models.dense)
  return tff.learning.models.from_keras_model(
    functional.keras_model(small_models.dense, seed=0),
    small_models.loss(),
    model.input_spec,
    metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name='accuracy')],
  )


def build(
  algorithm: config.Algorithm,
  *,
  client: config.Client = CLIENT,
  server: config.Server = SERVER,
  protection: protections.Protection = protections.UNPROTECTED,
  factory=small_models.dense,
  compression: config.Compression | None = None,
  population: int = len(SIZES),
  aggregator: tff.aggregators.AggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
  """Returns the process of an algorithm on the small model."""
  return table.build(
    small_models.build(factory),
    algorithm=algorithm,
    client=client,
    server=server,
    protection=protection,
    population=population,
    aggregator=aggregator or tff.aggregators.MeanFactory(no_nan_division=True),
    compression=compression or config.Compression(),
    seed=3,
  )


def run(process: tff.learning.templates.LearningProcess, **arguments):
  """Returns (trainable weights, metrics) after each round of `cohorts`.

  Arguments as for `run_and_keep`.
  """
  return run_and_keep(process, **arguments)[0]


def run_and_keep(
  process: tff.learning.templates.LearningProcess,
  *,
  engine: config.EngineName = config.EngineName.IN_PROCESS,
  client: config.Client = CLIENT,
  clients: client_data.ClientData | None = None,
  cohorts=COHORTS,
  initial_client_state=None,
):
  """Returns what `run` does, the last server state, and the client states."""
  outputs = []
  with engines.build(
    engine,
    process,
    data=clients or data(),
    schedule=table.schedule(client),
    seed=3,
    noise_key=KEY,
  ) as running:
    store = client_store.for_channel(
      running.channel, initial=initial_client_state
    )
    runner = client_store.keeping(running, store)
    state = running.initialize()
    for number, cohort in enumerate(cohorts, start=1):
      done = runner.round(
        state, round_num=number, clients=np.array(cohort, np.int64)
      )
      state = done.state
      weights = [np.asarray(w) for w in state.global_model_weights.trainable]
      outputs.append((weights, done.metrics))
  return outputs, state, store


def weights(rounds) -> list[np.ndarray]:
  """Returns all weights after all rounds, flat."""
  return [w for found, _ in rounds for w in found]


def assert_equal(ours, theirs, *, tolerance: float = 3e-6) -> None:
  """Asserts that two runs have the same weights after each round."""
  assert_close(weights(ours), weights(theirs), tolerance=tolerance)


def assert_close(found, expected, *, tolerance: float = 5e-6) -> None:
  """Asserts that two lists of tensors are equal."""
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=tolerance, rtol=0)


def assert_moved(rounds) -> None:
  """Asserts that training did something."""
  start = small_models.build(small_models.dense).initial_weights[0]
  last, _ = rounds[-1]
  start = start[: len(last)]  # Local layers come last here.
  assert (
    max(np.abs(a - b).max() for a, b in zip(last, start, strict=True)) > 1e-2
  )


def numpy_gradient(weights, x, y):
  """Gradient and loss of softmax regression, by hand, in float64."""
  kernel, bias = weights
  logits = x @ kernel + bias
  logits = logits - logits.max(axis=1, keepdims=True)
  shares = np.exp(logits)
  shares /= shares.sum(axis=1, keepdims=True)
  loss = -np.log(shares[np.arange(len(y)), y]).mean()
  error = shares
  error[np.arange(len(y)), y] -= 1.0
  error /= len(y)
  return [x.T @ error, error.sum(axis=0)], loss


def linear() -> tf.keras.Model:
  """Softmax regression on the inputs of `data`, for references in NumPy."""
  return tf.keras.Sequential(
    [tf.keras.Input((6,)), tf.keras.layers.Dense(small_models.CLASSES)]
  )


def numpy_start() -> list[np.ndarray]:
  """Returns the initial weights of `linear` in float64."""
  return [
    np.array(w, np.float64)
    for w in small_models.build(linear).initial_weights[0]
  ]


def numpy_steps(weights, x, y, *, client, drift=lambda weights, start: 0.0):
  """Local SGD in row order; `drift` is added to each gradient, per tensor."""
  start, current = weights, [np.array(w, np.float64) for w in weights]
  for _ in range(client.epochs):
    for first in range(0, len(y), client.batch_size):
      rows = slice(first, first + client.batch_size)
      gradient, _ = numpy_gradient(current, x[rows], y[rows])
      current = [
        w - client.learning_rate * (g + drift(w, s))
        for w, g, s in zip(current, gradient, start, strict=True)
      ]
  return current


def numpy_clients(
  clients: client_data.ClientData, cohort
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns the data of a cohort in float64."""
  found = []
  for index in cohort:
    one = clients.client(index)
    found.append((one['x'].astype(np.float64), one['y']))
  return found
