"""The CNN of TensorFlow Privacy's MNIST tutorial: small, for DP-SGD."""

import functools

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two strided convolutions, a dense layer of 32 -> logits.

  No layer has an activation, and kernels start as He's: so is the code whose
  figures TensorFlow Privacy published (tutorials/mnist_dpsgd_tutorial.py at
  commit 01ab549 of tensorflow/privacy). Pooling is what is not linear.

  28x28x1 inputs and 10 classes make 1,040 + 8,224 + 16,416 + 330 = 26,010
  parameters. Uncompiled.

  Args:
    input_shape: (height, width, channels).
    num_classes: Number of logits.
  """
  layers = tf.keras.layers
  convolution = functools.partial(
    layers.Conv2D, strides=2, kernel_initializer='he_normal'
  )
  dense = functools.partial(layers.Dense, kernel_initializer='he_normal')
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      convolution(16, 8, padding='same'),
      layers.MaxPool2D(2, 1),
      convolution(32, 4),
      layers.MaxPool2D(2, 1),
      layers.Flatten(),
      dense(32),
      dense(num_classes),
    ]
  )
