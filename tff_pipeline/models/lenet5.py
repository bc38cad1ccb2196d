"""The CNN of NIID-Bench (arXiv:2102.02079), section V: LeNet-5 with ReLU."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two 5x5 convolutions, dense layers of 120 and 84 -> logits.

  The convolutions have 6 and 16 channels, each followed by 2x2 max pooling.
  28x28x1 inputs and 10 classes make 44,426 parameters. Uncompiled.

  Args:
    input_shape: (height, width, channels).
    num_classes: Number of logits.
  """
  layers = tf.keras.layers
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      layers.Conv2D(6, 5, activation='relu'),
      layers.MaxPool2D(),
      layers.Conv2D(16, 5, activation='relu'),
      layers.MaxPool2D(),
      layers.Flatten(),
      layers.Dense(120, activation='relu'),
      layers.Dense(84, activation='relu'),
      layers.Dense(num_classes),
    ]
  )
