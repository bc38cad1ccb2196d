"""Keras layers with the same result and a gradient that suits a CPU.

A layer of Keras is swapped for one of these when a model is copied into a
client's training graph; configuration, weights, their names and their order
stay as they are. What is saved, loaded and evaluated elsewhere is the model of
plain Keras layers that the factory built.

- A product with a transposed matrix whose rows lie a power of two apart falls
  on few sets of the cache. The gradient with respect to a dense layer's input,
  `dy @ kernel^T`, is such a product; `(kernel @ dy^T)^T` is not.
- A product by a matrix of rows that long takes twice the time of four products
  by the matrices of the four gates.
- The gradient of a recurrent layer's weights is a sum over time steps. Keras
  adds one product of matrices per step to a sum as large as the weights; the
  same sum is one product of matrices over the whole sequence.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# Smaller kernels fit into the cache closest to a core, whatever their strides.
_LARGE_KERNEL = 1 << 16
_KERAS_LSTM = tf.keras.layers.LSTM


def faster(
  layer: type[tf.keras.layers.Layer],
) -> type[tf.keras.layers.Layer]:
  """Returns the class to use for a layer's copy: its own, or one from here.

  A subclass may compute anything, so only Keras's own classes are swapped. With
  a GPU nothing is: Keras has kernels for it.
  """
  if tf.config.list_physical_devices('GPU'):
    return layer
  return {tf.keras.layers.Dense: Dense, _KERAS_LSTM: LSTM}.get(layer, layer)


@tf.custom_gradient
def _matmul(x: tf.Tensor, kernel: tf.Tensor) -> Any:
  """Returns x @ kernel; [n, inputs] and [inputs, units] -> [n, units]."""

  def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    dx = tf.transpose(tf.matmul(kernel, dy, transpose_b=True))
    return dx, tf.matmul(x, dy, transpose_a=True)

  return tf.matmul(x, kernel), gradient


class Dense(tf.keras.layers.Dense):
  """Keras's dense layer."""

  def call(self, inputs: Any) -> Any:
    """Returns activation(inputs @ kernel + bias); [..., units]."""
    kernel = tf.convert_to_tensor(self.kernel)
    plain = isinstance(inputs, tf.Tensor) and inputs.dtype == kernel.dtype
    if not plain or kernel.shape.num_elements() < _LARGE_KERNEL:
      return super().call(inputs)
    rows = tf.reshape(inputs, [-1, kernel.shape[0]])
    outputs = _matmul(rows, kernel)
    if self.use_bias:
      outputs = tf.nn.bias_add(outputs, self.bias)
    outputs = tf.reshape(
      outputs, tf.concat([tf.shape(inputs)[:-1], [self.units]], 0)
    )
    outputs.set_shape([*inputs.shape[:-1], self.units])
    return outputs if self.activation is None else self.activation(outputs)


class LSTM(tf.keras.layers.LSTM):
  """Keras's LSTM (Hochreiter and Schmidhuber 1997).

    i, f, g, o = gates(x_t @ kernel + h_{t-1} @ recurrent_kernel + bias)
    c_t = f * c_{t-1} + i * g,   h_t = o * tanh(c_t)

  with sigmoid gates i, f, o and tanh for g. Where the mask is false, c and h
  stay as they were, as Keras has it.
  """

  def call(
    self,
    inputs: Any,
    mask: Any = None,
    training: Any = None,
    initial_state: Any = None,
  ) -> Any:
    """Returns h of all steps, or of the last one; see Keras's LSTM."""
    if initial_state is not None or not self._is_ordinary(inputs):
      return super().call(
        inputs, mask=mask, training=training, initial_state=initial_state
      )
    weights = [
      tf.convert_to_tensor(w)
      for w in (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
    ]
    time_major = tf.transpose(inputs, [1, 0, 2])
    if mask is None:
      outputs = _unmasked_sequence(time_major, *weights)
    else:
      keep = tf.cast(tf.transpose(mask), inputs.dtype)[..., tf.newaxis]
      outputs = _masked_sequence(time_major, *weights, keep)
    if not self.return_sequences:
      return tf.ensure_shape(outputs[-1], [inputs.shape[0], self.units])
    outputs = tf.transpose(outputs, [1, 0, 2])
    return tf.ensure_shape(outputs, [*inputs.shape[:2], self.units])

  def _is_ordinary(self, inputs: Any) -> bool:
    """Returns whether the equations above are all that it is asked for."""
    return (
      isinstance(inputs, tf.Tensor)
      and self.activation is tf.keras.activations.tanh
      and self.recurrent_activation is tf.keras.activations.sigmoid
      and self.use_bias
      and not any(
        (
          self.dropout,
          self.go_backwards,
          self.recurrent_dropout,
          self.return_runtime,
          self.return_state,
          self.stateful,
          self.time_major,
          self.unroll,
          self.zero_output_for_mask,
        )
      )
    )


@tf.custom_gradient
def _unmasked_sequence(
  x: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor
) -> Any:
  history = _forward(x, kernel, recurrent, bias, None)

  def gradient(dh: tf.Tensor) -> Sequence[tf.Tensor]:
    return _backward(dh, x, kernel, recurrent, history, None)

  return history[-1], gradient


@tf.custom_gradient
def _masked_sequence(
  x: tf.Tensor,
  kernel: tf.Tensor,
  recurrent: tf.Tensor,
  bias: tf.Tensor,
  keep: tf.Tensor,
) -> Any:
  history = _forward(x, kernel, recurrent, bias, keep)

  def gradient(dh: tf.Tensor) -> Sequence[tf.Tensor | None]:
    return *_backward(dh, x, kernel, recurrent, history, keep), None

  return history[-1], gradient


def _forward(
  x: tf.Tensor,
  kernel: tf.Tensor,
  recurrent: tf.Tensor,
  bias: tf.Tensor,
  keep: tf.Tensor | None,
) -> tuple[tf.Tensor, ...]:
  """Runs over a sequence from a zero state.

  Args:
    x: [time, batch, inputs].
    kernel: [inputs, 4 units], the gates in the order i, f, g, o.
    recurrent: [units, 4 units].
    bias: [4 units].
    keep: 1 where a step counts, 0 where it is masked; [time, batch, 1].

  Returns:
    sigmoid of all gates [time, batch, 4 units]; g, c, h [time, batch, units].
  """
  time, batch = tf.unstack(tf.shape(x)[:2])
  units = recurrent.shape[0]
  rows = tf.reshape(x, [-1, kernel.shape[0]])
  projected = _joined(tf.matmul(rows[tf.newaxis], _by_gate(kernel)))
  projected = tf.nn.bias_add(projected, bias)
  projected = tf.reshape(projected, [time, batch, 4 * units])
  zero = tf.zeros([batch, units], x.dtype)

  def step(t, h, c, history):
    z = tf.gather(projected, t) + tf.matmul(h, recurrent)
    gates = tf.sigmoid(z)
    candidate = tf.tanh(z[:, 2 * units : 3 * units])
    i, f, _, o = tf.split(gates, 4, axis=1)
    new_c = f * c + i * candidate
    new_h = o * tf.tanh(new_c)
    if keep is not None:
      kept = tf.gather(keep, t) > 0
      new_h, new_c = tf.where(kept, new_h, h), tf.where(kept, new_c, c)
    written = (gates, candidate, new_c, new_h)
    history = tuple(
      a.write(t, v) for a, v in zip(history, written, strict=True)
    )
    return t + 1, new_h, new_c, history

  history = tuple(
    tf.TensorArray(x.dtype, time, element_shape=[None, width * units])
    for width in (4, 1, 1, 1)
  )
  *_, history = tf.while_loop(
    lambda t, *_: t < time,
    step,
    (0, zero, zero, history),
    shape_invariants=(
      tf.TensorShape([]),
      tf.TensorShape([None, units]),
      tf.TensorShape([None, units]),
      tuple(tf.TensorShape(None) for _ in history),
    ),
    parallel_iterations=1,
  )
  return tuple(array.stack() for array in history)


def _backward(
  dh_outside: tf.Tensor,
  x: tf.Tensor,
  kernel: tf.Tensor,
  recurrent: tf.Tensor,
  history: tuple[tf.Tensor, ...],
  keep: tf.Tensor | None,
) -> tuple[tf.Tensor, ...]:
  """Returns the gradients of x, kernel, recurrent kernel and bias.

  Only the recurrence is left in the loop. What each gate's gradient is
  multiplied by is computed for all steps before it, and the gradients of the
  weights from the gate gradients of all steps after it.
  """
  gates, g, c, h = history
  time, batch = tf.unstack(tf.shape(x)[:2])
  units = recurrent.shape[0]
  i, f, _, o = tf.split(gates, 4, axis=2)
  c_before, h_before = (
    tf.concat([tf.zeros_like(t[:1]), t[:-1]], axis=0) for t in (c, h)
  )
  tanh_c = tf.tanh(c)
  into_c = o * (1 - tanh_c**2)
  factors = [
    g * i * (1 - i),
    c_before * f * (1 - f),
    i * (1 - g**2),
    tanh_c * o * (1 - o),
  ]
  if keep is not None:
    into_c *= keep
    factors = [factor * keep for factor in factors]
  factors = tf.stack(factors, axis=2)
  transposed = tf.transpose(recurrent)

  def step(t, dh, dc, dz_of):
    dh += tf.gather(dh_outside, t)
    dc_new = dc if keep is None else dc * tf.gather(keep, t)
    dc_new += dh * tf.gather(into_c, t)
    dz = tf.stack([dc_new, dc_new, dc_new, dh], axis=1) * tf.gather(factors, t)
    dz = tf.reshape(dz, [-1, 4 * units])
    dc_before, dh_before = dc_new * tf.gather(f, t), tf.matmul(dz, transposed)
    if keep is not None:
      skipped = 1 - tf.gather(keep, t)
      dc_before += skipped * dc
      dh_before += skipped * dh
    return t - 1, dh_before, dc_before, dz_of.write(t, dz)

  zero = tf.zeros_like(h[0])
  *_, dz = tf.while_loop(
    lambda t, *_: t >= 0,
    step,
    (
      time - 1,
      zero,
      zero,
      tf.TensorArray(x.dtype, time, element_shape=[None, 4 * units]),
    ),
    parallel_iterations=1,
  )
  dz = tf.reshape(dz.stack(), [-1, 4 * units])
  rows = tf.reshape(x, [-1, kernel.shape[0]])

  def weight_gradient(inputs):
    inputs = tf.reshape(inputs, [1, -1, inputs.shape[-1]])
    return _joined(tf.matmul(inputs, _by_gate(dz), transpose_a=True))

  return (
    tf.reshape(tf.matmul(dz, kernel, transpose_b=True), tf.shape(x)),
    weight_gradient(rows),
    weight_gradient(h_before),
    tf.reduce_sum(dz, axis=0),
  )


def _by_gate(matrix: tf.Tensor) -> tf.Tensor:
  """Returns a matrix [n, 4 units] as [4, n, units]: shorter rows, see above."""
  split = tf.reshape(matrix, [-1, 4, matrix.shape[1] // 4])
  return tf.transpose(split, [1, 0, 2])


def _joined(gates: tf.Tensor) -> tf.Tensor:
  """Returns [4, n, units] as the matrix [n, 4 units] of Keras."""
  joined = tf.transpose(gates, [1, 0, 2])
  return tf.reshape(joined, [-1, 4 * gates.shape[2]])
