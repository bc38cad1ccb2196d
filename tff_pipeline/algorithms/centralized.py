"""Training on pooled data: the baseline that federated DP is compared with.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep learning with
differential privacy", CCS 2016 (arXiv:1607.00133), Algorithm 1, on all clients'
examples in one place. It is no `LearningProcess`, but runs like an engine, so
that run directory, ledger and statement are the same.

A batch is to examples what a cohort is to clients, and is drawn by the same
samplers, a pure function of seed and step. Two kinds of steps:

  batches=poisson     our own per-example step (`keyed_steps`), noise keyed by
                      step: a replayed round releases the same values again
  batches=fixed_size  TensorFlow Privacy's Keras optimizers (`tfp_steps`), whose
                      noise comes from TensorFlow's own generator: a replayed
                      round is a second release, and is priced as one

Without privacy the step is ours, whatever the batches. The gradient is always
divided by the nominal batch size, which is public.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import optimizers
from tff_pipeline import sampling
from tff_pipeline import validate
from tff_pipeline.algorithms import keyed_steps
from tff_pipeline.algorithms import pooled_steps
from tff_pipeline.algorithms import tfp_steps
from tff_pipeline.data import client_data
from tff_pipeline.models import functional
from tff_pipeline.privacy import noise_key as noise_keys


class Round(NamedTuple):
  """What a round gives back, as a round of an engine does."""

  state: pooled_steps.State
  metrics: dict[str, dict[str, Any]]


class Centralized:
  """Runs rounds of centralized training; an engine."""

  def __init__(
    self,
    steps: pooled_steps.Steps,
    *,
    sample_batch: sampling.Sampler,
    steps_per_round: int,
    seed: int,
    noise_key: noise_keys.NoiseKey,
    rate: optimizers.Rate | None = None,
  ):
    self._steps = steps
    self._sample_batch = sample_batch
    self._steps_per_round = steps_per_round
    self._seed = seed
    self._noise_key = noise_key
    self._rate = rate

  def __enter__(self) -> 'Centralized':
    return self

  def __exit__(self, *exception: Any) -> None:
    pass

  def initialize(self) -> pooled_steps.State:
    """Returns the initial state."""
    return self._steps.initialize()

  def round(
    self, state: pooled_steps.State, *, round_num: int, clients: np.ndarray
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
      learning_rate=self._rate and float(self._rate(tf.constant(round_num))),
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
    client: Optimizer, batch size and learning rates by round.
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
    steps = keyed_steps.KeyedSteps(
      model, examples, client=client, privacy=privacy
    )
  else:
    tfp_steps.check_examples_apart(model, examples)
    steps = tfp_steps.TfpSteps(
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
    rate=optimizers.rate(client),
  )
