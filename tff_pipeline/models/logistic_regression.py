"""Logistic regression, one for each tag, on a bag of words."""

import tensorflow as tf


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns bag of words -> a logit a tag; uncompiled.

  10,000 words and 500 tags make 5,000,500 parameters, the model of Reddi et al.
  2021 (arXiv:2003.00295) for StackOverflow's tags.
  """
  return tf.keras.Sequential(
    [tf.keras.Input(input_shape), tf.keras.layers.Dense(num_classes)]
  )
