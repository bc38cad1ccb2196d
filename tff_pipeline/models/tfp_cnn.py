"""The CNN of TensorFlow Privacy's MNIST tutorial: small, for DP-SGD."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two strided convolutions, a dense layer of 32 -> logits.

  28x28x1 inputs and 10 classes make 1,040 + 8,224 + 16,416 + 330 = 26,010
  parameters. Uncompiled.

  Args:
    input_shape: (height, width, channels).
    num_classes: Number of logits.
  """
  layers = tf.keras.layers
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      layers.Conv2D(16, 8, strides=2, padding='same', activation='relu'),
      layers.MaxPool2D(2, 1),
      layers.Conv2D(32, 4, strides=2, activation='relu'),
      layers.MaxPool2D(2, 1),
      layers.Flatten(),
      layers.Dense(32, activation='relu'),
      layers.Dense(num_classes),
    ]
  )
