"""Norms of the gradients of single examples, without those gradients.

A layer is linear in its weights, so the gradient of one example's loss is a
product of what went into the layer and of the gradient d of the loss with
respect to what came out of it, before the activation. One pass backward over a
whole batch gives d of all examples. With rows (positions) p of one example:

  kernel:     g = sum_p x_p d_p^T; with one row, |g|^2 = |x|^2 |d|^2
  bias:       g = sum_p d_p
  embedding:  g of a row of the table = sum of d_p over all p that look it up

Goodfellow, "Efficient per-example gradient computations", 2015
(arXiv:1510.01799). The rows of a convolution are its patches: Rochette, Manoel,
Tramel, "Efficient per-example gradient computations in convolutional neural
networks", 2019 (arXiv:1912.06015). With many rows, g is formed, layer by layer:
the sum over pairs of rows, which avoids it, loses half of the digits where rows
cancel, and a norm that is too small would let too much through the clip.

An example's d must not depend on the others of its batch, or clipping by these
norms would bound nothing. So only layers that are known to treat each example
by itself are taken, and every weight has to belong to one of them.
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
import math
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

_SquaredNorms = Callable[[tf.keras.layers.Layer, tf.Tensor, tf.Tensor], Any]
_layers = tf.keras.layers

# Those of Keras that treat each number, or each example's last axis, by itself.
_ACTIVATIONS = (
  tf.keras.activations.elu,
  tf.keras.activations.exponential,
  tf.keras.activations.gelu,
  tf.keras.activations.hard_sigmoid,
  tf.keras.activations.linear,
  tf.keras.activations.mish,
  tf.keras.activations.relu,
  tf.keras.activations.selu,
  tf.keras.activations.sigmoid,
  tf.keras.activations.softmax,
  tf.keras.activations.softplus,
  tf.keras.activations.softsign,
  tf.keras.activations.swish,
  tf.keras.activations.tanh,
)
# Without weights, and example by example.
_PLAIN = frozenset(
  {
    _layers.Activation,
    _layers.Add,
    _layers.AveragePooling1D,
    _layers.AveragePooling2D,
    _layers.ELU,
    _layers.Flatten,
    _layers.GlobalAveragePooling1D,
    _layers.GlobalAveragePooling2D,
    _layers.GlobalMaxPooling1D,
    _layers.GlobalMaxPooling2D,
    _layers.InputLayer,
    _layers.LeakyReLU,
    _layers.MaxPooling1D,
    _layers.MaxPooling2D,
    _layers.Multiply,
    _layers.Permute,
    _layers.ReLU,
    _layers.Reshape,
    _layers.Softmax,
    _layers.ZeroPadding2D,
  }
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
  """What went through a layer once: inputs, and outputs before activation."""

  layer: tf.keras.layers.Layer
  squared_norms: _SquaredNorms
  inputs: tf.Tensor
  outputs: tf.Tensor


class Record:
  """What went through the layers in the latest call of a model."""

  def __init__(self) -> None:
    self.clear()

  def clear(self) -> None:
    """Forgets everything."""
    self._calls: list[_Call] = []
    self._unknown = False

  def add(
    self,
    layer: tf.keras.layers.Layer,
    original: type,
    inputs: Any,
    outputs: Any,
    activation: Callable[..., Any] | None,
  ) -> None:
    """Notes one call of a layer that is a copy of one of class `original`."""
    known = activation is None or activation in _ACTIVATIONS
    if original in _PLAIN and known and _spares_examples(layer):
      return
    squared_norms = _SQUARED_NORMS.get(original)
    if squared_norms is None or not known or not _is_ordinary(layer):
      self._unknown = True
      return
    self._calls.append(
      _Call(
        layer=layer,
        squared_norms=squared_norms,
        inputs=inputs,
        outputs=outputs,
      )
    )

  def covers(self, num_weights: int) -> bool:
    """Returns whether the norms are those of a model of so many weights."""
    layers = [call.layer for call in self._calls]
    found = sum(1 + bool(getattr(layer, 'use_bias', False)) for layer in layers)
    once = len(set(map(id, layers))) == len(layers)
    return once and not self._unknown and found == num_weights

  def norms(self, tape: tf.GradientTape, losses: tf.Tensor) -> tf.Tensor:
    """Returns the L2 norms of the gradients of all weights; float[n].

    Args:
      tape: Has seen the model and the losses.
      losses: float[n], one for each example.
    """
    outputs = [call.outputs for call in self._calls]
    gradients = tape.gradient(losses, outputs)
    squares = [
      call.squared_norms(call.layer, call.inputs, gradient)
      for call, gradient in zip(self._calls, gradients, strict=True)
    ]
    return tf.sqrt(tf.add_n(squares))


_current: contextvars.ContextVar[Record | None] = contextvars.ContextVar(
  'example_norms_record', default=None
)


def record(
  model: tff.learning.models.FunctionalModel,
  weights: tuple[Any, Any],
  x: Any,
  *,
  seed: tf.Tensor,
) -> tuple[Any, Record]:
  """Returns a model's output for a batch, and what went through its layers.

  Args:
    model: Of `models.functional`.
    weights: (trainable, non-trainable).
    x: The batch.
    seed: int64[2], of the model's own randomness.
  """
  with _recording() as found:
    # Not `predict_on_batch` itself, a `tf.function`: nothing can be
    # differentiated by tensors inside of one.
    predict = model._predict_on_batch_fn.python_function
    return predict(weights, x, seed), found


@contextlib.contextmanager
def _recording() -> Iterator[Record]:
  found = Record()
  token = _current.set(found)
  try:
    yield found
  finally:
    _current.reset(token)


def begin_call() -> None:
  """Makes the record that is open, if any, that of the call that follows.

  Keras calls the layers of a copy once while it builds it.
  """
  found = _current.get()
  if found is not None:
    found.clear()


def watch(layer: tf.keras.layers.Layer, *, original: type) -> None:
  """Makes a layer note what goes through it; its results stay the same.

  Args:
    layer: Not called yet.
    original: The class that it is a copy of, and computes the same as.
  """
  call, activation = layer.call, getattr(layer, 'activation', None)
  apart = original in _SQUARED_NORMS and activation is not None
  if apart:
    layer.activation = None

  @tf.autograph.experimental.do_not_convert
  def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
    outputs = call(inputs, *args, **kwargs)
    found = _current.get()
    if found is not None:
      found.add(layer, original, inputs, outputs, activation)
    return activation(outputs) if apart else outputs

  layer.call = watched


def _spares_examples(layer: tf.keras.layers.Layer) -> bool:
  """Returns whether a layer without weights leaves the first axis alone."""
  return not isinstance(layer, _layers.Softmax) or layer.axis == -1


def _is_ordinary(layer: tf.keras.layers.Layer) -> bool:
  """Returns whether the loss, and its gradient, is the formula's alone."""
  regularized = any(
    getattr(layer, f'{part}_regularizer', None) is not None
    for part in ('kernel', 'bias', 'activity', 'embeddings')
  )
  channels_first = getattr(layer, 'data_format', None) == 'channels_first'
  return (
    not regularized and not channels_first and getattr(layer, 'groups', 1) == 1
  )


def _dense(layer: Any, x: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
  return _affine(layer, _rows(x), _rows(d))


def _conv_2d(layer: Any, x: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
  patches = tf.image.extract_patches(
    x,
    sizes=[1, *layer.kernel_size, 1],
    strides=[1, *layer.strides, 1],
    rates=[1, *layer.dilation_rate, 1],
    padding=layer.padding.upper(),
  )
  return _affine(layer, _rows(patches), _rows(d))


def _embedding(layer: Any, ids: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
  del layer
  ids, d = tf.reshape(ids, [tf.shape(ids)[0], -1]), _rows(d)
  examples, positions = tf.shape(ids)[0], tf.shape(ids)[1]
  same = tf.equal(ids[:, :, tf.newaxis], ids[:, tf.newaxis, :])
  # The position that first looks up the same row, of each.
  first = tf.argmax(same, axis=2, output_type=tf.int32)
  slots = first + positions * tf.range(examples)[:, tf.newaxis]
  sums = tf.math.unsorted_segment_sum(
    tf.reshape(d, [examples * positions, d.shape[2]]),
    tf.reshape(slots, [-1]),
    examples * positions,
  )
  squares = tf.reduce_sum(tf.square(sums), 1)
  return tf.reduce_sum(tf.reshape(squares, [examples, positions]), 1)


_SQUARED_NORMS: dict[type, _SquaredNorms] = {
  _layers.Dense: _dense,
  _layers.Conv2D: _conv_2d,
  _layers.Embedding: _embedding,
}
"""Class -> (layer, inputs, gradient of the outputs) -> squared norms of the
gradients of its weights, one for each example."""


def _rows(values: tf.Tensor) -> tf.Tensor:
  """Returns [n, ..., width] as [n, rows, width]."""
  inner, width = values.shape[1:-1], values.shape[-1]
  rows = math.prod(inner) if inner.is_fully_defined() else -1
  return tf.reshape(values, [tf.shape(values)[0], rows, width])


def _affine(layer: Any, x: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
  """Returns those of kernel and bias; x: [n, rows, inputs], d: [n, rows, k]."""
  if x.shape[1] == 1:
    squares = tf.reduce_sum(tf.square(x), [1, 2]) * tf.reduce_sum(
      tf.square(d), [1, 2]
    )
  else:
    kernels = tf.matmul(x, d, transpose_a=True)
    squares = tf.reduce_sum(tf.square(kernels), [1, 2])
  if layer.use_bias:
    squares += tf.reduce_sum(tf.square(tf.reduce_sum(d, 1)), 1)
  return squares
