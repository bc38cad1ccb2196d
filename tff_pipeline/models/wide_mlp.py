"""The network of Abadi et al. 2016 (arXiv:1607.00133), section 5.1."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns input -> 1,000 ReLU units -> logits; uncompiled.

  60 principal components and 10 classes make 60 * 1000 + 1000 + 1000 * 10 + 10
  = 71,010 parameters.
  """
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      tf.keras.layers.Flatten(),
      tf.keras.layers.Dense(1000, activation='relu'),
      tf.keras.layers.Dense(num_classes),
    ]
  )
