"""The bottleneck autoencoder of Reddi et al. 2021 (arXiv:2003.00295)."""

import math

import tensorflow as tf

_UNITS = (1000, 500, 250, 30, 250, 500, 1000)


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns image -> its pixels in [0, 1], through 30 units; uncompiled.

  784 inputs make 2,837,314 parameters, as in the paper.

  Args:
    input_shape: Of an image.
    num_classes: Not used: there are no labels.
  """
  del num_classes
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape),
      tf.keras.layers.Flatten(),
      # The code itself is linear.
      *(
        tf.keras.layers.Dense(
          units, activation='linear' if units == min(_UNITS) else 'sigmoid'
        )
        for units in _UNITS
      ),
      tf.keras.layers.Dense(math.prod(input_shape), activation='sigmoid'),
    ]
  )
