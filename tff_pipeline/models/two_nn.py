"""The 2NN of McMahan et al. 2017 (arXiv:1602.05629), section 3."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns two hidden layers of 200 ReLU units each -> logits; uncompiled.

  28x28 inputs and 10 classes make 199,210 parameters, as in the paper.
  """
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      tf.keras.layers.Flatten(),
      tf.keras.layers.Dense(200, activation='relu'),
      tf.keras.layers.Dense(200, activation='relu'),
      tf.keras.layers.Dense(num_classes),
    ]
  )
