"""Training on pooled data: the baseline that federated DP is compared with.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep learning with
differential privacy", CCS 2016 (arXiv:1607.00133), Algorithm 1, on all clients'
examples in one place. It is no `LearningProcess`, but runs like an engine, so
that run directory, ledger and statement are the same.

A batch is to examples what a cohort is to clients, and is drawn by the same
samplers, a pure function of seed and step. Two kinds of steps:

  batches=poisson     our own per-example step, noise keyed by step: a replayed
                      round releases the same values again
  batches=fixed_size  TensorFlow Privacy's Keras optimizers, whose noise comes
                      from TensorFlow's own generator: a replayed round is a
                      second release, and is priced as one

Without privacy the step is ours, whatever the batches. The gradient is always
divided by the nominal batch size, which is public.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import tensorflow_privacy as tfp

from tff_pipeline import config
from tff_pipeline import keyed_noise
from tff_pipeline import optimizers
from tff_pipeline import sampling
from tff_pipeline import validate
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.models import functional
from tff_pipeline.privacy import mechanisms
from tff_pipeline.privacy import noise_key as noise_keys

Weights = tff.learning.models.ModelWeights
_BATCH_OF_CHECK = 8


class State(NamedTuple):
  """What a checkpoint of a centralized run holds.

  Attributes:
    global_model_weights: The model's weights.
    optimizer: The state of the optimizer.
  """

  global_model_weights: Weights
  optimizer: Any


class Round(NamedTuple):
  """What a round gives back, as a round of an engine does."""

  state: State
  metrics: dict[str, dict[str, Any]]


class Centralized:
  """Runs rounds of centralized training; an engine."""

  def __init__(
    self,
    steps: '_KeyedSteps | _KerasSteps',
    *,
    sample_batch: sampling.Sampler,
    steps_per_round: int,
    seed: int,
    noise_key: noise_keys.NoiseKey,
  ):
    self._steps = steps
    self._sample_batch = sample_batch
    self._steps_per_round = steps_per_round
    self._seed = seed
    self._noise_key = noise_key

  def __enter__(self) -> 'Centralized':
    return self

  def __exit__(self, *exception: Any) -> None:
    pass

  def initialize(self) -> State:
    """Returns the initial state."""
    return self._steps.initialize()

  def round(
    self, state: State, *, round_num: int, clients: np.ndarray
  ) -> Round:
    """Runs one round's steps; the clients are everybody, always."""
    del clients
    first = (round_num - 1) * self._steps_per_round
    numbers = range(first + 1, first + self._steps_per_round + 1)
    # All data is one client's, number 0.
    nobody_else = np.zeros(1, np.int64)
    state, metrics = self._steps.run(
      state,
      [self._sample_batch(number) for number in numbers],
      key=sampling.client_keys(self._seed, round_num, nobody_else)[0],
      noise_key=noise_keys.for_clients(self._noise_key, round_num, nobody_else)[
        0
      ],
    )
    return Round(state, {'train': metrics})


def has_keyed_noise(privacy: config.Privacy, batches: config.Batches) -> bool:
  """Returns whether a replayed round releases the same values again."""
  return privacy.mechanism is config.Mechanism.NONE or noise_keys.is_keyed(
    batches
  )


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  keras_factory: Callable[[], tf.keras.Model],
  loss_factory: Callable[[], tf.keras.losses.Loss],
  examples: client_data.Examples,
  client: config.Client,
  privacy: config.Privacy,
  batches: config.Batches,
  steps_per_round: int,
  seed: int,
  noise_key: noise_keys.NoiseKey,
) -> Centralized:
  """Returns the engine of a centralized run.

  Args:
    model: The functional model with the initial weights.
    keras_factory: Builds the same model for Keras.
    loss_factory: Builds its loss.
    examples: All training examples.
    client: Optimizer and batch size.
    privacy: `none` or `dp_sgd`.
    batches: How a batch is drawn.
    steps_per_round: Optimizer steps in a round, as priced.
    seed: The experiment's seed; decides batches and initial weights.
    noise_key: What keyed noise derives from.

  Raises:
    UsageError: If the batch is larger than the data, if the optimizer has no
      differentially private form in TensorFlow Privacy, or if the model would
      let examples of a batch into each other's gradients there.
  """
  if client.batch_size > len(examples):
    raise validate.error(
      'client.batch_size',
      expected=f'at most the {len(examples)} training examples',
      found=client.batch_size,
    )
  if has_keyed_noise(privacy, batches):
    steps = _KeyedSteps(model, examples, client=client, privacy=privacy)
  else:
    _check_examples_apart(model, examples)
    steps = _KerasSteps(
      functional.keras_model(keras_factory, seed=seed),
      loss_factory(),
      examples,
      client=client,
      privacy=privacy,
    )
  return Centralized(
    steps,
    sample_batch=sampling.build(
      config.Cohort(
        sampling=config.Sampling(batches), clients_per_round=client.batch_size
      ),
      population=len(examples),
      seed=seed,
    ),
    steps_per_round=steps_per_round,
    seed=seed,
    noise_key=noise_key,
  )


def _check_examples_apart(
  model: tff.learning.models.FunctionalModel, examples: client_data.Examples
) -> None:
  """Refuses a model whose output for an example depends on another one.

  TensorFlow Privacy's optimizers clip the gradients of the losses of a batch
  that went through the model as a whole. One example would be in all of them,
  and clipping each would not bound what it adds. Our own step takes each
  example through such a model alone.
  """
  batch = np.array(examples.x[:_BATCH_OF_CHECK])
  other = batch.copy()
  other[0] = examples.x[-1]
  with tf.Graph().as_default():
    outputs = [
      model.predict_on_batch(
        tf.nest.map_structure(tf.constant, tuple(model.initial_weights)),
        tf.constant(x),
        training=tf.zeros([2], tf.int64),
      )
      for x in (batch, other)
    ]
    with tf.compat.v1.Session() as session:
      one, two = session.run(outputs)
  if not np.allclose(one[1:], two[1:], rtol=1e-4, atol=1e-6, equal_nan=True):
    raise validate.error(
      'task.model',
      expected='a model that treats each example by itself with '
      f'--algorithm.batches={config.Batches.FIXED_SIZE}',
      found='outputs that change with another example of the batch',
      remedy=f'Set --algorithm.batches={config.Batches.POISSON}',
    )


class _KeyedSteps:
  """Our own step, in a graph and session of its own.

  A functional model made from Keras runs in graphs only.
  """

  def __init__(
    self,
    model: tff.learning.models.FunctionalModel,
    examples: client_data.Examples,
    *,
    client: config.Client,
    privacy: config.Privacy,
  ):
    self._model = model
    self._optimizer = optimizers.build(client)
    self._batch_size = client.batch_size
    self._gradient = _gradient(model, privacy, batch_size=client.batch_size)
    graph = tf.Graph()
    with graph.as_default():
      self._state, initial = self._placeholders()
      self._rows = tf.compat.v1.placeholder(tf.int64, [None])
      self._ends = tf.compat.v1.placeholder(tf.int64, [None])
      self._keys = {
        name: tf.compat.v1.placeholder(tf.int64, [2])
        for name in (training_loop.KEY, training_loop.NOISE_KEY)
      }
      data, load, feed = _session_constants(examples)
      self._results = self._train(data)
    self._session = tf.compat.v1.Session(graph=graph)
    self._session.run(load, feed)
    self._initial = self._session.run(initial)

  def _placeholders(self) -> tuple[State, State]:
    trainable = tuple(map(tf.constant, self._model.initial_weights[0]))
    initial = State(
      Weights(trainable, ()),
      self._optimizer.initialize(
        tuple(tf.TensorSpec(w.shape, w.dtype) for w in trainable)
      ),
    )
    # Hyper-parameters are Python numbers at first.
    initial = tf.nest.map_structure(tf.convert_to_tensor, initial)
    state = tf.nest.map_structure(
      lambda t: tf.compat.v1.placeholder(t.dtype, t.shape), initial
    )
    return state, initial

  def _train(self, data: tuple[tf.Tensor, tf.Tensor]) -> tuple[State, Any]:
    """Builds the loop over the batches of a round."""
    start = self._state.global_model_weights.trainable

    def take_step(index, first, trainable, optimizer_state, metrics):
      rows = self._rows[first : self._ends[index]]
      x, y = (tf.gather(part, rows) for part in data)
      step = training_loop.Step(
        number=index,
        seed=keyed_noise.derive_seed(self._keys[training_loop.KEY], index),
        start=start,
        element=self._keys,
      )
      found = self._gradient.call((trainable, ()), x, y, step)
      count = tf.size(rows)
      optimizer_state, trainable = self._optimizer.next(
        optimizer_state, trainable, found.value
      )
      # The mean of an empty batch is undefined.
      loss = tf.where(count > 0, found.loss, 0.0)
      metrics = train_metrics.add_batch(
        self._model,
        metrics,
        loss=loss,
        output=found.output,
        y=y,
        count=count,
      )
      metrics = train_metrics.add_counts(metrics, found.counts)
      return (
        index + 1,
        self._ends[index],
        tuple(trainable),
        optimizer_state,
        metrics,
      )

    _, _, trainable, optimizer_state, metrics = tf.while_loop(
      lambda index, *_: index < tf.size(self._ends, tf.int64),
      take_step,
      (
        tf.constant(0, tf.int64),
        tf.constant(0, tf.int64),
        start,
        self._state.optimizer,
        train_metrics.zero(self._model, counts=self._gradient.counts),
      ),
      parallel_iterations=1,
    )
    final = train_metrics.finalizer(self._model)(metrics)
    return State(Weights(trainable, ()), optimizer_state), final

  def initialize(self) -> State:
    """Returns the initial state."""
    return self._initial

  def run(
    self,
    state: State,
    batches: Sequence[np.ndarray],
    *,
    key: np.ndarray,
    noise_key: np.ndarray,
  ) -> tuple[State, dict[str, Any]]:
    """Takes a step on each batch of row numbers."""
    feed = dict(
      zip(tf.nest.flatten(self._state), tf.nest.flatten(state), strict=True)
    )
    feed[self._rows] = np.concatenate(batches)
    feed[self._ends] = np.cumsum([len(rows) for rows in batches])
    feed[self._keys[training_loop.KEY]] = key
    feed[self._keys[training_loop.NOISE_KEY]] = noise_key
    return self._session.run(self._results, feed)


def _gradient(
  model: tff.learning.models.FunctionalModel,
  privacy: config.Privacy,
  *,
  batch_size: int,
) -> training_loop.GradientFn:
  """Returns the mechanism's gradient, over the nominal batch size."""
  protection = mechanisms.protection(privacy)
  gradient = protection.gradient(model, batch_size=batch_size)
  if protection.gradient is not protections.plain_gradient:
    return gradient

  def over_nominal_size(weights, x, y, step):
    found = gradient.call(weights, x, y, step)
    share = tf.size(y) / batch_size
    value = tf.nest.map_structure(
      lambda g: tf.where(
        share > 0, g * tf.cast(share, g.dtype), tf.zeros_like(g)
      ),
      tf.nest.map_structure(tf.convert_to_tensor, found.value),
    )
    return found._replace(value=value)

  return training_loop.GradientFn(
    call=over_nominal_size, counts=gradient.counts
  )


def _session_constants(
  examples: client_data.Examples,
) -> tuple[tuple[tf.Tensor, tf.Tensor], Any, dict[Any, np.ndarray]]:
  """Returns variables for x and y, what loads them, and what to feed it.

  Constants of a graph are limited to 2 GB, and feeding them in each round would
  copy them.
  """
  variables, feed = [], {}
  for part in (examples.x, examples.y):
    source = tf.compat.v1.placeholder(part.dtype, part.shape)
    feed[source] = part
    variables.append(
      tf.compat.v1.Variable(source, trainable=False, use_resource=True)
    )
  load = tf.compat.v1.global_variables_initializer()
  return tuple(v.read_value() for v in variables), load, feed


class _KerasSteps:
  """TensorFlow Privacy's optimizers on a Keras model."""

  def __init__(
    self,
    model: tf.keras.Model,
    loss: tf.keras.losses.Loss,
    examples: client_data.Examples,
    *,
    client: config.Client,
    privacy: config.Privacy,
  ):
    self._model = model
    self._loss = loss
    self._x = tf.constant(examples.x)
    self._y = tf.constant(examples.y)
    self._optimizer = _tfp_optimizer(client, privacy)
    # Its variables have to be there before the first step, for checkpoints.
    self._optimizer._create_all_weights(model.trainable_variables)
    self._initial = self._current()
    # Traced now: once anything has called a Keras model in a `tf.Graph`, as an
    # evaluation does, Keras refuses to call those made before.
    self._step = tf.function(
      self._take_step, autograph=False
    ).get_concrete_function(tf.TensorSpec([client.batch_size], tf.int64))

  def _current(self) -> State:
    weights = tuple(v.numpy() for v in self._model.trainable_variables)
    return State(Weights(weights, ()), tuple(self._optimizer.get_weights()))

  def _take_step(self, rows: tf.Tensor) -> tf.Tensor:
    x, y = tf.gather(self._x, rows), tf.gather(self._y, rows)
    losses = []

    def compute_losses():
      # The optimizer clips by example, so it needs a loss by example. Not that
      # of a batch without reduction: a loss may average over more than rows.
      losses.append(
        tf.vectorized_map(
          lambda one: self._loss(one[0][tf.newaxis], one[1][tf.newaxis]),
          (y, self._model(x, training=True)),
        )
      )
      return losses[-1]

    gradients = self._optimizer._compute_gradients(
      compute_losses, self._model.trainable_variables
    )
    self._optimizer.apply_gradients(gradients)
    return tf.reduce_sum(losses[-1])

  def initialize(self) -> State:
    """Returns the initial state."""
    return self._initial

  def run(
    self,
    state: State,
    batches: Sequence[np.ndarray],
    *,
    key: np.ndarray,
    noise_key: np.ndarray,
  ) -> tuple[State, dict[str, Any]]:
    """Takes a step on each batch of row numbers; its noise has no key."""
    del key, noise_key
    for variable, value in zip(
      self._model.trainable_variables,
      state.global_model_weights.trainable,
      strict=True,
    ):
      variable.assign(value)
    self._optimizer.set_weights(list(state.optimizer))
    loss_sum = sum(float(self._step(tf.constant(rows))) for rows in batches)
    count = sum(map(len, batches))
    metrics = {
      'loss': loss_sum / count,
      'num_examples': count,
      'num_batches': len(batches),
    }
    return self._current(), metrics


def _tfp_optimizer(client: config.Client, privacy: config.Privacy) -> Any:
  """Returns TensorFlow Privacy's form of the client's optimizer."""
  shared = {
    'l2_norm_clip': privacy.clip_norm,
    'noise_multiplier': privacy.noise_multiplier,
    'num_microbatches': client.batch_size,
    'learning_rate': client.learning_rate,
  }
  if client.optimizer is config.Optimizer.SGD:
    return tfp.VectorizedDPKerasSGDOptimizer(
      momentum=client.momentum or 0.0, **shared
    )
  if client.optimizer is config.Optimizer.ADAM:
    moments = {
      name: getattr(client, name)
      for name in ('beta_1', 'beta_2', 'epsilon')
      if getattr(client, name) is not None
    }
    return tfp.VectorizedDPKerasAdamOptimizer(**moments, **shared)
  raise validate.error(
    'client.optimizer',
    expected=f'{config.Optimizer.SGD} or {config.Optimizer.ADAM} with '
    f'--algorithm.batches={config.Batches.FIXED_SIZE}, which TensorFlow '
    'Privacy has',
    found=client.optimizer,
    remedy=f'Set --algorithm.batches={config.Batches.POISSON}',
  )
