"""The CNN of McMahan et al. 2017 (arXiv:1602.05629), section 3."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two 5x5 convolutions, a dense layer of 512 -> logits; uncompiled.

  The convolutions have 32 and 64 channels, each followed by 2x2 max pooling.
  28x28x1 inputs and 10 classes make 1,663,370 parameters, as in the paper.

  Args:
    input_shape: (height, width, channels).
    num_classes: Number of logits.
  """

  def convolution(channels: int) -> tf.keras.layers.Layer:
    return tf.keras.layers.Conv2D(
      channels, 5, padding='same', activation='relu'
    )

  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      convolution(32),
      tf.keras.layers.MaxPool2D(),
      convolution(64),
      tf.keras.layers.MaxPool2D(),
      tf.keras.layers.Flatten(),
      tf.keras.layers.Dense(512, activation='relu'),
      tf.keras.layers.Dense(num_classes),
    ]
  )
