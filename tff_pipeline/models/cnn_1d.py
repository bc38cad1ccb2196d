"""A small convolutional network over time, for sensor windows."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two convolutions over time, averaged -> logits; uncompiled.

  Windows of 100 samples of 6 channels and 7 classes make
  (6 * 7 + 1) * 32 + (32 * 5 + 1) * 64 + 64 * 7 + 7 = 12,135 parameters.

  Args:
    input_shape: (samples, channels).
    num_classes: Number of logits.
  """
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      tf.keras.layers.Conv1D(32, 7, padding='same', activation='relu'),
      tf.keras.layers.MaxPool1D(),
      tf.keras.layers.Conv1D(64, 5, padding='same', activation='relu'),
      tf.keras.layers.GlobalAveragePooling1D(),
      tf.keras.layers.Dense(num_classes),
    ]
  )
