"""What a client's data looks like to a process.

A process of this package takes dense data: a sequence of one element with all
tensors of the client and its shuffle key. The key is made here, from seed,
round and client, none of which the client's work can see. A process that adds
noise on the client also asks for a noise key, which the seed does not decide.
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
from tff_pipeline.data import client_data
from tff_pipeline.privacy import noise_key as noise_keys

Element = collections.OrderedDict[str, Any]


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
  """

  size: Any
  x: Any
  y: Any
  starts: Any
  sizes: Any
  keys: Any
  noise_keys: Any


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
  ):
    """Initializes the feed.

    Args:
      data: All clients.
      element_type: Type of an element of a client's data.
      schedule: Epochs, batches and shuffling of batched datasets; a process
        that takes dense data has its own.
      seed: The experiment's seed; decides the shuffle keys.
      noise_key: The run's noise key; decides the clients' noise keys.
    """
    self._data = data
    self._schedule = schedule
    self._seed = seed
    self._noise_key = noise_key
    self._names = [name for name, _ in structure.iter_elements(element_type)]
    self.is_dense = training_loop.KEY in self._names
    self._examples = None
    self._x = None
    self._y = None

  def cohort(self, *, round_num: int, clients: np.ndarray) -> Cohort:
    """Returns a cohort's arrays; flat data in memory is shared by all rounds.

    The largest clients come first, so that lanes which take turns are even.
    """
    sizes = self._data.client_sizes[clients]
    order = np.argsort(-sizes, kind='stable')
    clients, sizes = clients[order], sizes[order]
    examples, starts = self._data.gather(clients)
    if examples is not self._examples:
      self._examples = examples
      self._x, self._y = tf.constant(examples.x), tf.constant(examples.y)
    keys = sampling.client_keys(self._seed, round_num, clients)
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
    )

  def cohort_spec(self) -> Cohort:
    """Returns the tensor specs of `cohort`, the same for every round."""
    examples = self._data.prototype
    many = tf.TensorSpec([None], tf.int64)
    pairs = tf.TensorSpec([None, 2], tf.int64)
    return Cohort(
      size=tf.TensorSpec([], tf.int32),
      x=tf.TensorSpec([None, *examples.x.shape[1:]], examples.x.dtype),
      y=tf.TensorSpec([None, *examples.y.shape[1:]], examples.y.dtype),
      starts=many,
      sizes=many,
      keys=pairs,
      noise_keys=pairs,
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
    }
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
    return batches


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
  )
