"""The CNN with dropout of Reddi et al. 2021 (arXiv:2003.00295), for EMNIST."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two 3x3 convolutions, a dense layer of 128 -> logits; uncompiled.

  28x28x1 inputs make 1,199,882 parameters with 10 classes and 1,206,590 with
  62, as in the paper.

  Args:
    input_shape: (height, width, channels).
    num_classes: Number of logits.
  """
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      tf.keras.layers.Conv2D(32, 3, activation='relu'),
      tf.keras.layers.Conv2D(64, 3, activation='relu'),
      tf.keras.layers.MaxPool2D(),
      tf.keras.layers.Dropout(0.25),
      tf.keras.layers.Flatten(),
      tf.keras.layers.Dense(128, activation='relu'),
      tf.keras.layers.Dropout(0.5),
      tf.keras.layers.Dense(num_classes),
    ]
  )
