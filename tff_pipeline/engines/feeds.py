"""What a client's data looks like to a process.

A process of this package takes dense data: a sequence of one element with all
tensors of the client and its shuffle key. The key is made here, from seed,
round and client, none of which the client's work can see. A process that adds
noise on the client also asks for a noise key, which the seed does not decide.
"""

import collections
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_federated.python.common_libs import structure

from tff_pipeline import client_work
from tff_pipeline import sampling
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


class Dense:
  """Dense elements of a cohort."""

  def __init__(
    self,
    data: client_data.ClientData,
    *,
    seed: int,
    noise_key: noise_keys.NoiseKey,
    names: tuple[str, ...],
  ):
    """Initializes the feed.

    Args:
      data: All clients.
      seed: The experiment's seed; decides the shuffle keys.
      noise_key: The run's noise key; decides the clients' noise keys.
      names: Keys of the element that the process takes, in its order.
    """
    self._data = data
    self._seed = seed
    self._noise_key = noise_key
    self._names = names
    self._x = None
    self._y = None

  def elements(self, *, round_num: int, clients: np.ndarray) -> list[Element]:
    """Returns one element per client; views, not copies."""
    keys, noise = self._keys(round_num, clients)
    elements = []
    for index, client in enumerate(clients):
      values = self._data.client(client)
      values[client_work.KEY] = keys[index]
      values[client_work.NOISE_KEY] = noise[index]
      elements.append(Element((name, values[name]) for name in self._names))
    return elements

  def _keys(
    self, round_num: int, clients: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    keys = sampling.client_keys(self._seed, round_num, clients)
    if client_work.NOISE_KEY not in self._names:
      return keys, np.zeros_like(keys)
    noise = noise_keys.for_clients(self._noise_key, round_num, clients)
    return keys, noise

  def cohort(self, *, round_num: int, clients: np.ndarray) -> Cohort:
    """Returns a cohort for `element`; the flat data is shared by all rounds.

    The largest clients come first, so that lanes which take turns are even.
    """
    if self._x is None:
      self._x = tf.constant(self._data.examples.x)
      self._y = tf.constant(self._data.examples.y)
    sizes = self._data.client_sizes[clients]
    order = np.argsort(-sizes, kind='stable')
    clients, sizes = clients[order], sizes[order]
    keys, noise = self._keys(round_num, clients)
    return Cohort(
      size=tf.constant(len(clients), tf.int32),
      x=self._x,
      y=self._y,
      starts=tf.constant(self._data.offsets[clients], tf.int64),
      sizes=tf.constant(sizes, tf.int64),
      keys=tf.constant(keys, tf.int64, [len(clients), 2]),
      noise_keys=tf.constant(noise, tf.int64, [len(clients), 2]),
    )

  def cohort_spec(self) -> Cohort:
    """Returns the tensor specs of `cohort`, the same for every round."""
    examples = self._data.examples
    many = tf.TensorSpec([None], tf.int64)
    pairs = tf.TensorSpec([None, 2], tf.int64)
    return Cohort(
      size=tf.TensorSpec([], tf.int32),
      x=tf.TensorSpec(examples.x.shape, examples.x.dtype),
      y=tf.TensorSpec(examples.y.shape, examples.y.dtype),
      starts=many,
      sizes=many,
      keys=pairs,
      noise_keys=pairs,
    )

  def element(self, cohort: Cohort, index: tf.Tensor) -> Element:
    """Returns one client's element, inside a graph."""
    start = cohort.starts[index]
    rows = slice(start, start + cohort.sizes[index])
    values = {
      'x': cohort.x[rows],
      'y': cohort.y[rows],
      client_work.KEY: cohort.keys[index],
      client_work.NOISE_KEY: cohort.noise_keys[index],
    }
    return Element((name, values[name]) for name in self._names)


def for_process(
  process: Any,
  data: client_data.ClientData,
  *,
  seed: int,
  noise_key: noise_keys.NoiseKey,
) -> Dense:
  """Returns the feed for what a process takes as client data."""
  element_type = process.next.type_signature.parameter[1].member.element
  names = tuple(name for name, _ in structure.iter_elements(element_type))
  return Dense(data, seed=seed, noise_key=noise_key, names=names)
