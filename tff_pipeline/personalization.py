"""How good the model is for clients that never trained, once it is theirs.

The protocol of Wu, Li, Charles, Xiao, Liu, Xu, Smith, "Motley: benchmarking
heterogeneity and personalization in federated learning", 2022
(arXiv:2206.09262), section 3, for held-out clients:

  - some clients are set aside before training, at random; they are no part of
    the population, and of two kinds: validation and test;
  - the data of each has a part to adapt the model to, and one to measure it on:
    what the data set itself holds out of a client, or else a random half;
  - a client adapts for 0, 1, ..., E epochs of SGD, and is measured after each;
  - the length with the best mean accuracy over validation clients is that of
    the test clients, whose distribution is reported.

What adapts are the local layers, from their initial values, where the model has
some, and all layers where it has none. So *before* (0 epochs) is the global
model in the second case only; in the first, it is a head that nobody has
trained, and being hurt means to be worse than that.

All of it is evaluation data, and metrics on it: no privacy statement covers it.
"""

from collections.abc import Sequence
import csv
import dataclasses
import enum
import io
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import evaluation
from tff_pipeline import keyed_noise
from tff_pipeline import sampling
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.models import split as splits

_STREAM = 0x9E_25_01
# Rounds are numbered from 1, so their shuffles have other keys.
_AFTER_TRAINING = 0


class Role(enum.StrEnum):
  """What a held-out client is for."""

  VALIDATION = 'validation'
  TEST = 'test'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Member:
  """A client that never trains.

  Attributes:
    client: Its number among all clients, before any were held out.
    role: What it is for.
    adapting: Examples that it adapts the model to.
    measuring: Others, that it is measured on.
  """

  client: int
  role: Role
  adapting: client_data.Examples
  measuring: client_data.Examples


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
  """What held-out clients got.

  Attributes:
    members: The clients that were measured.
    accuracies: Of each after 0, 1, ... epochs; float64[members, epochs + 1].
    adapted: Which layers adapted: `all` or `local`.
  """

  members: tuple[Member, ...]
  accuracies: np.ndarray
  adapted: str

  def _of(self, role: Role) -> np.ndarray:
    return self.accuracies[[m.role is role for m in self.members]]

  @property
  def epochs(self) -> int:
    """The first length that is best for the mean validation client."""
    return int(np.argmax(self._of(Role.VALIDATION).mean(axis=0)))

  def summary(self) -> dict[str, Any]:
    """Returns the report: the test clients at the chosen length."""
    test = self._of(Role.TEST)
    before, after = test[:, 0], test[:, self.epochs]
    return {
      'adapted_layers': self.adapted,
      'epochs': self.epochs,
      'clients': len(test),
      'before': evaluation.distribution(before),
      'after': evaluation.distribution(after),
      'share_hurt': float(np.mean(after < before)),
    }

  def table(self) -> str:
    """Returns a row for each client, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    lengths = range(self.accuracies.shape[1])
    writer.writerow(
      ['client', 'role', 'adapting_examples', 'measuring_examples']
      + [f'accuracy_after_{length}' for length in lengths]
    )
    for member, row in zip(self.members, self.accuracies, strict=True):
      sizes = len(member.adapting), len(member.measuring)
      writer.writerow([member.client, member.role, *sizes, *row.tolist()])
    return text.getvalue()


def hold_out(
  task: tasks.Task, leaves: config.Personalization, *, seed: int
) -> tuple[tasks.Task, tuple[Member, ...]]:
  """Returns the task without the clients that are held out, and these.

  A client without an example on either side is held out, and not measured.

  Args:
    task: The task.
    leaves: How many clients to hold out.
    seed: The experiment's seed; decides who it is, and the halves.

  Raises:
    UsageError: If there is nothing to measure, too few clients, or data that
      is not in memory.
  """
  if leaves.name is config.PersonalizationName.NONE:
    return task, ()
  _check(task, leaves)
  number = task.train.num_clients
  order = _generator(seed).permutation(number)
  chosen, left = order[: leaves.held_out], np.sort(order[leaves.held_out :])
  roles = [Role.VALIDATION] * leaves.validation_clients
  roles += [Role.TEST] * leaves.test_clients
  members = []
  for client, role in zip(chosen.tolist(), roles, strict=True):
    parts = _parts(task, client, seed=seed)
    if all(map(len, parts)):
      members.append(
        Member(client=client, role=role, adapting=parts[0], measuring=parts[1])
      )
  for role in Role:
    if role not in {member.role for member in members}:
      raise validate.error(
        f'personalization.{role}_clients',
        expected='some with an example to adapt to and one to measure on',
        found='none',
      )
  test = task.client_test
  remaining = dataclasses.replace(
    task,
    train=client_data.select(task.train, left),
    client_test=None if test is None else client_data.select(test, left),
  )
  return remaining, tuple(members)


def measure(
  model: tff.learning.models.FunctionalModel,
  weights: tff.learning.models.ModelWeights,
  members: Sequence[Member],
  *,
  leaves: config.Personalization,
  batch_size: int,
  seed: int,
  evaluator: evaluation.Evaluator,
) -> Outcome:
  """Returns what held-out clients get from a model.

  Args:
    model: The model, split or not.
    weights: Its weights.
    members: From `hold_out`.
    leaves: How they adapt.
    batch_size: Examples in a mini-batch, unless the leaves have their own.
    seed: The experiment's seed; decides the shuffles.
    evaluator: Of the model.
  """
  adapter = _Adapter(
    model,
    learning_rate=leaves.learning_rate,
    batch_size=leaves.batch_size or batch_size,
  )
  accuracies = []
  for member in members:
    key = sampling.client_key(seed, _AFTER_TRAINING, member.client)
    own, row = weights, []
    for epoch in range(leaves.epochs + 1):
      if epoch:
        own = adapter(own, member.adapting, key=key, epoch=epoch)
      row.append(evaluator.on(own, member.measuring)['accuracy'])
    accuracies.append(row)
  return Outcome(
    members=tuple(members),
    accuracies=np.array(accuracies),
    adapted='local' if adapter.is_local else 'all',
  )


class _Adapter:
  """Trains a model for an epoch, in a graph that is built once.

  Attributes:
    is_local: Whether it trains local layers only.
  """

  def __init__(
    self,
    model: tff.learning.models.FunctionalModel,
    *,
    learning_rate: float,
    batch_size: int,
  ):
    self.is_local = isinstance(model, splits.SplitModel) and model.has_local
    trained = model.swapped() if self.is_local else model
    graph = tf.Graph()
    with graph.as_default():
      spec = training_loop.element_spec(trained, {})
      self._weights, self._element, self._epoch = tf.nest.map_structure(
        lambda s: tf.compat.v1.placeholder(s.dtype, s.shape),
        (
          tuple(
            tuple(tf.TensorSpec(w.shape, w.dtype) for w in part)
            for part in trained.initial_weights
          ),
          spec,
          tf.TensorSpec([], tf.int64),
        ),
      )
      element = self._element.copy()
      element[training_loop.KEY] = keyed_noise.derive_seed(
        element[training_loop.KEY], self._epoch
      )
      # Plain SGD has no state that ends with an epoch.
      self._trained, _ = training_loop.train(
        trained,
        training_loop.batch_gradient(trained),
        optimizer=tff.learning.optimizers.build_sgdm(learning_rate),
        schedule=training_loop.Schedule(
          epochs=1, batch_size=batch_size, shuffle=config.Shuffle.ON
        ),
        weights=self._weights,
        element=element,
      )
    # TensorFlow's own settings; see `engines.threads`.
    self._session = tf.compat.v1.Session(
      graph=graph, config=tf.compat.v1.ConfigProto()
    )

  def __call__(
    self,
    weights: tff.learning.models.ModelWeights,
    examples: client_data.Examples,
    *,
    key: np.ndarray,
    epoch: int,
  ) -> tff.learning.models.ModelWeights:
    """Returns the weights after one more epoch."""
    parts = [weights.trainable, weights.non_trainable]
    if self.is_local:
      parts.reverse()
    feed = dict(
      zip(tf.nest.flatten(self._weights), tf.nest.flatten(parts), strict=True)
    )
    feed[self._element['x']] = examples.x
    feed[self._element['y']] = examples.y
    feed[self._element[training_loop.KEY]] = key
    feed[self._epoch] = epoch
    parts[0] = tuple(self._session.run(self._trained, feed))
    if self.is_local:
      parts.reverse()
    return tff.learning.models.ModelWeights(*parts)


def _check(task: tasks.Task, leaves: config.Personalization) -> None:
  expected = f'with --personalization.name={leaves.name}'
  if not isinstance(task.train, client_data.ClientData):
    raise validate.error(
      'task.name',
      expected=f'a task that is read into memory {expected}',
      found='a streamed one',
    )
  if 'accuracy' not in task.metric_factory():
    raise validate.error(
      'personalization.name',
      expected=f'{config.PersonalizationName.NONE} with a task that has no '
      'accuracy',
      found=leaves.name,
    )
  if leaves.held_out >= task.train.num_clients:
    raise validate.error(
      'personalization.test_clients',
      expected='clients that are left to train: fewer held out than the '
      f'{task.train.num_clients} of the data',
      found=f'{leaves.held_out} held out',
    )


def _parts(
  task: tasks.Task, client: int, *, seed: int
) -> tuple[client_data.Examples, client_data.Examples]:
  """Returns what a client adapts to, and what it is measured on."""
  own = task.train.client(client)
  if task.client_test is not None:
    test = task.client_test.client(client)
    return tuple(
      client_data.Examples(one['x'], one['y']) for one in (own, test)
    )
  order = _generator(seed, client).permutation(len(own['y']))
  half = len(order) // 2
  return tuple(
    client_data.Examples(own['x'][rows], own['y'][rows])
    for rows in (order[:half], order[half:])
  )


def _generator(seed: int, *path: int) -> np.random.Generator:
  return np.random.default_rng(
    np.random.SeedSequence(seed, spawn_key=(_STREAM, *path))
  )
