"""Weights -> metrics on held-out data."""

import collections
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
  ):
    self._test = test
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
    values = (weights.trainable, weights.non_trainable)
    feed = dict(
      zip(tf.nest.flatten(self._weights), tf.nest.flatten(values), strict=True)
    )
    feed[self._data['x']] = self._test.x
    feed[self._data['y']] = self._test.y
    found = self._session.run(self._metrics, feed)
    return {name: float(np.asarray(value)) for name, value in found.items()}


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
