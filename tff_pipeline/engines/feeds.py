"""What a client's data looks like to a process.

A process of this package takes dense data: a sequence of one element with all
tensors of the client and its shuffle key. The key is made here, from seed,
round and client, none of which the client's work can see. A process that adds
noise on the client also asks for a noise key, which the seed does not decide.
A stateful one asks for the client's index and state (`state_channel`).
Any other process, such as TFF's own ones, gets shuffled and batched datasets.
"""

import collections
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure

from tff_pipeline import sampling
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import aligned
from tff_pipeline.data import client_data
from tff_pipeline.engines import state_channel
from tff_pipeline.privacy import noise_key as noise_keys

Element = collections.OrderedDict[str, Any]

# What no batch of examples has.
_DENSE = {
  training_loop.KEY,
  training_loop.NOISE_KEY,
  training_loop.INDEX,
  training_loop.STATE,
  training_loop.EPOCHS,
}


class Cohort(NamedTuple):
  """The data of a cohort as flat arrays, for engines that slice in TensorFlow.

  Attributes:
    size: Number of clients; int32 scalar.
    x: Features of many clients, end to end; [n, ...].
    y: Their labels; [n, ...].
    starts: First row of each client; int64[size].
    sizes: Number of rows of each client; int64[size].
    keys: Shuffle keys; int64[size, 2].
    noise_keys: int64[size, 2]; zeros if the process asks for none.
    indices: Which client of the population each one is; int64[size].
    epochs: What each one gets through in this round; int64[size].
    state_rows: Where the state of each client is in `states`; int64[size].
    states: Flat tensors of the clients' states, [size, ...] each; empty for a
      stateless process.
  """

  size: Any
  x: Any
  y: Any
  starts: Any
  sizes: Any
  keys: Any
  noise_keys: Any
  indices: Any
  epochs: Any
  state_rows: Any
  states: tuple[Any, ...] = ()


class Feed:
  """The data of cohorts, as a process wants it.

  Attributes:
    is_dense: Whether a client's data is one element with all its tensors.
  """

  def __init__(
    self,
    data: client_data.Clients,
    *,
    element_type: tff.Type,
    schedule: training_loop.Schedule,
    seed: int,
    noise_key: noise_keys.NoiseKey,
    channel: state_channel.Channel | None = None,
  ):
    """Initializes the feed.

    Args:
      data: All clients.
      element_type: Type of an element of a client's data.
      schedule: Epochs, batches and shuffling of batched datasets; a process
        that takes dense data has its own. The limit on examples holds for both.
      seed: The experiment's seed; decides the shuffle keys.
      noise_key: The run's noise key; decides the clients' noise keys.
      channel: How states enter the element, if it has any.
    """
    self._data = data
    self._schedule = schedule
    self._seed = seed
    self._noise_key = noise_key
    self._names = [name for name, _ in structure.iter_elements(element_type)]
    self._channel = channel
    self.is_dense = bool(_DENSE & set(self._names))
    self._examples = None
    self._x = None
    self._y = None

  def cohort(self, *, round_num: int, clients: np.ndarray) -> Cohort:
    """Returns a cohort's arrays; flat data in memory is shared by all rounds.

    The largest clients come first, so that lanes which take turns are even.
    States are not in it yet.
    """
    sizes = self._data.client_sizes[clients]
    if self._schedule.max_examples is not None:
      sizes = np.minimum(sizes, self._schedule.max_examples)
    order = np.argsort(-sizes, kind='stable')
    clients, sizes = clients[order], sizes[order]
    examples, starts = self._data.gather(clients)
    if examples is not self._examples:
      self._examples = examples
      self._x = aligned.as_tensor(examples.x)
      self._y = aligned.as_tensor(examples.y)
    keys = sampling.client_keys(self._seed, round_num, clients)
    epochs = np.full(len(clients), self._schedule.epochs)
    if self._schedule.straggler_share is not None:
      epochs = sampling.epochs_done(
        self._seed,
        round_num,
        clients,
        share=self._schedule.straggler_share,
        epochs=self._schedule.epochs,
      )
    noise = np.zeros_like(keys)
    if training_loop.NOISE_KEY in self._names:
      noise = noise_keys.for_clients(self._noise_key, round_num, clients)
    return Cohort(
      size=tf.constant(len(clients), tf.int32),
      x=self._x,
      y=self._y,
      starts=tf.constant(starts, tf.int64),
      sizes=tf.constant(sizes, tf.int64),
      keys=tf.constant(keys, tf.int64),
      noise_keys=tf.constant(noise, tf.int64),
      indices=tf.constant(clients, tf.int64),
      epochs=tf.constant(epochs, tf.int64),
      state_rows=tf.constant(order, tf.int64),
    )

  def cohort_spec(self) -> Cohort:
    """Returns the tensor specs of `cohort`, the same for every round."""
    examples = self._data.prototype
    many = tf.TensorSpec([None], tf.int64)
    pairs = tf.TensorSpec([None, 2], tf.int64)
    specs = self._channel.specs if self._channel else ()
    return Cohort(
      size=tf.TensorSpec([], tf.int32),
      x=tf.TensorSpec([None, *examples.x.shape[1:]], examples.x.dtype),
      y=tf.TensorSpec([None, *examples.y.shape[1:]], examples.y.dtype),
      starts=many,
      sizes=many,
      keys=pairs,
      noise_keys=pairs,
      indices=many,
      epochs=many,
      state_rows=many,
      states=tuple(tf.TensorSpec([None, *s.shape], s.dtype) for s in specs),
    )

  def element(self, cohort: Cohort, index: Any) -> Element:
    """Returns the one element of a client's dense data."""
    start = cohort.starts[index]
    rows = slice(start, start + cohort.sizes[index])
    values = {
      'x': cohort.x[rows],
      'y': cohort.y[rows],
      training_loop.KEY: cohort.keys[index],
      training_loop.NOISE_KEY: cohort.noise_keys[index],
      training_loop.INDEX: cohort.indices[index],
      training_loop.EPOCHS: cohort.epochs[index],
    }
    if self._channel is not None:
      row = cohort.state_rows[index]
      values[training_loop.STATE] = self._channel.packed(
        leaf[row] for leaf in cohort.states
      )
    return Element((name, values[name]) for name in self._names)

  def dataset(self, cohort: Cohort, index: Any) -> tf.data.Dataset:
    """Returns a client's data as the process's input type has it."""
    if self.is_dense:
      return tf.data.Dataset.from_tensors(self.element(cohort, index))
    start = cohort.starts[index]
    rows = slice(start, start + cohort.sizes[index])
    x, y = cohort.x[rows], cohort.y[rows]
    batches = None
    for epoch in range(self._schedule.epochs):
      order = training_loop.epoch_order(
        tf.shape(y)[0], cohort.keys[index], epoch, self._schedule.shuffle
      )
      examples = tuple(tf.gather(t, order) for t in (x, y))
      if self._names[0] is not None:
        examples = Element(zip(('x', 'y'), examples, strict=True))
      part = tf.data.Dataset.from_tensor_slices(examples)
      part = part.batch(self._schedule.batch_size)
      batches = part if batches is None else batches.concatenate(part)
    max_steps = self._schedule.max_steps
    return batches if max_steps is None else batches.take(max_steps)


def for_process(
  process: tff.learning.templates.LearningProcess,
  data: client_data.Clients,
  *,
  schedule: training_loop.Schedule,
  seed: int,
  noise_key: noise_keys.NoiseKey,
) -> Feed:
  """Returns the feed for what a process takes as client data."""
  client_type = process.next.type_signature.parameter[1].member
  return Feed(
    data,
    element_type=client_type.element,
    schedule=schedule,
    seed=seed,
    noise_key=noise_key,
    channel=state_channel.find(process),
  )
