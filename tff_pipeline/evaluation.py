"""Weights -> metrics on held-out data."""

import collections
from collections.abc import Callable, Sequence
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.client_work import train_metrics
from tff_pipeline.data import client_data

_BATCH_SIZE = 512


class Evaluator:
  """Measures a model on pooled held-out examples.

  The graph is built once and kept in a session of its own: a functional model
  made from Keras cannot run eagerly, and one graph does not retrace.
  """

  def __init__(
    self,
    model: tff.learning.models.FunctionalModel,
    *,
    test: client_data.Examples,
    attacked: client_data.Examples | None = None,
  ):
    """Builds the graph.

    Args:
      model: The model.
      test: Held-out examples.
      attacked: Others, with the labels that an attack wants: the accuracy on
        them is called `attack_success`.
    """
    self._test = test
    self._attacked = attacked
    graph = tf.Graph()
    with graph.as_default():
      self._weights = tf.nest.map_structure(
        lambda w: tf.compat.v1.placeholder(w.dtype, w.shape),
        tuple(tuple(part) for part in model.initial_weights),
      )
      self._data = collections.OrderedDict(
        (name, tf.compat.v1.placeholder(spec.dtype, spec.shape))
        for name, spec in model.input_spec.items()
      )
      self._metrics = _measure(model, self._weights, self._data)
    # TensorFlow's own settings, not those that suit training; see
    # `engines.threads`.
    self._session = tf.compat.v1.Session(
      graph=graph, config=tf.compat.v1.ConfigProto()
    )

  def __call__(
    self, weights: tff.learning.models.ModelWeights
  ) -> dict[str, float]:
    """Returns loss and metrics, averaged over all test examples."""
    found = self.on(weights, self._test)
    if self._attacked is not None:
      success = self.on(weights, self._attacked)['accuracy']
      found['attack_success'] = success
    return found

  def on(
    self,
    weights: tff.learning.models.ModelWeights,
    examples: client_data.Examples,
  ) -> dict[str, float]:
    """Returns loss and metrics, averaged over these examples."""
    values = (weights.trainable, weights.non_trainable)
    feed = dict(
      zip(tf.nest.flatten(self._weights), tf.nest.flatten(values), strict=True)
    )
    feed[self._data['x']] = examples.x
    feed[self._data['y']] = examples.y
    found = self._session.run(self._metrics, feed)
    return {name: float(np.asarray(value)) for name, value in found.items()}


class ClientEvaluator:
  """Measures the accuracy on each client's own examples, un-noised.

  Where clients have local weights of their own, each is measured with its own.
  """

  def __init__(
    self,
    evaluator: Evaluator,
    *,
    train: client_data.Clients,
    test: client_data.Clients | None,
    local_weights: Callable[[int], Sequence[np.ndarray]] | None = None,
  ):
    """Chooses the examples.

    Args:
      evaluator: Of the model.
      train: The clients' training examples.
      test: Their held-out ones, which are used if there are any.
      local_weights: Client -> what it has in the place of the non-trainable
        weights; unset means that it has nothing.
    """
    self._evaluator = evaluator
    self._local_weights = local_weights
    self._clients = train if test is None else test
    self._prefix = (
      f'unnoised_client_{"train" if test is None else "test"}_accuracy_'
    )

  @property
  def columns(self) -> tuple[str, ...]:
    """Names of what a call returns."""
    return tuple(self._prefix + name for name in distribution([]))

  def __call__(
    self, weights: tff.learning.models.ModelWeights
  ) -> dict[str, float]:
    """Returns columns: the distribution over clients that have examples."""
    accuracies = []
    for client in np.flatnonzero(self._clients.client_sizes).tolist():
      one = self._clients.client(client)
      examples = client_data.Examples(one['x'], one['y'])
      if self._local_weights is not None:
        weights = tff.learning.models.ModelWeights(
          weights.trainable, self._local_weights(client)
        )
      accuracies.append(self._evaluator.on(weights, examples)['accuracy'])
    return {
      self._prefix + name: value
      for name, value in distribution(accuracies).items()
    }


def distribution(values: Sequence[float]) -> dict[str, float]:
  """Returns mean, 10th and 90th percentile, and mean of the lowest tenth.

  >>> distribution([0.5, 1.0, 0.0, 0.5])['worst_decile']
  0.0
  """
  ordered = np.sort(np.asarray(values, np.float64))
  if not len(ordered):
    return dict.fromkeys(('mean', 'p10', 'p90', 'worst_decile'), math.nan)
  lowest = ordered[: math.ceil(len(ordered) / 10)]
  return {
    'mean': float(ordered.mean()),
    'p10': float(np.quantile(ordered, 0.1)),
    'p90': float(np.quantile(ordered, 0.9)),
    'worst_decile': float(lowest.mean()),
  }


def _measure(
  model: tff.learning.models.FunctionalModel, weights: Any, data: Any
) -> dict[str, tf.Tensor]:
  """Builds the graph that walks over the data in batches, without training."""
  size = tf.shape(data['y'])[0]

  def add_batch(start, metrics):
    x = data['x'][start : start + _BATCH_SIZE]
    y = data['y'][start : start + _BATCH_SIZE]
    output = model.predict_on_batch(weights, x, training=False)
    metrics = train_metrics.add_batch(
      model,
      metrics,
      loss=model.loss(output=output, label=y),
      output=output,
      y=y,
      count=tf.shape(y)[0],
    )
    return start + _BATCH_SIZE, metrics

  _, metrics = tf.while_loop(
    lambda start, _: start < size,
    add_batch,
    (tf.constant(0), train_metrics.zero(model)),
    parallel_iterations=1,
  )
  final = train_metrics.finalizer(model)(metrics)
  bookkeeping = ('num_examples', 'num_batches', 'rejected_updates')
  return {k: v for k, v in final.items() if k not in bookkeeping}
