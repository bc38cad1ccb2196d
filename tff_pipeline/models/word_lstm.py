"""The word LSTM of Reddi et al. 2021 (arXiv:2003.00295), for StackOverflow."""

import tensorflow as tf

_EMBEDDING = 96
_UNITS = 670


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns word ids -> logits of each next word; uncompiled.

  An embedding of 96, an LSTM of 670 units, a projection to 96, the words.
  10,004 ids make 4,050,748 parameters, as in the paper.

  Args:
    input_shape: (words,).
    num_classes: Number of ids, of which 0 is padding.
  """
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape, dtype='int32'),
      tf.keras.layers.Embedding(num_classes, _EMBEDDING),
      tf.keras.layers.LSTM(_UNITS, return_sequences=True),
      tf.keras.layers.Dense(_EMBEDDING),
      tf.keras.layers.Dense(num_classes),
    ]
  )
