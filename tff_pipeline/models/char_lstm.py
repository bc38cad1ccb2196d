"""The character LSTM of McMahan et al. 2017 (arXiv:1602.05629), section 3.

In the shape of Reddi et al. 2021 (arXiv:2003.00295), appendix C.
"""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns characters -> logits of the next character, each step; uncompiled.

  An embedding of 8, two LSTM layers of 256 units, and a dense layer. Sequences
  of 80 and 90 classes (86 characters; padding, unknown, start and end) make
  820,522 parameters, as in Reddi et al. 2021. Padding that follows the text
  cannot reach the text's outputs, so the layers need no mask; loss and metrics
  have to leave the padding out.

  Args:
    input_shape: (length,); a sequence of int character ids.
    num_classes: Number of different ids, and of logits.
  """
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape, dtype=tf.int32),
      tf.keras.layers.Embedding(num_classes, 8),
      tf.keras.layers.LSTM(256, return_sequences=True),
      tf.keras.layers.LSTM(256, return_sequences=True),
      tf.keras.layers.Dense(num_classes),
    ]
  )
