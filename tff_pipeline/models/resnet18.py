"""ResNet-18 with group normalization, for CIFAR-100.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks"
(arXiv:1603.05027), with the group normalization of Wu and He
(arXiv:1803.08494) in the place of batch normalization, as Hsieh et al.
(arXiv:1910.00189) and Reddi et al. (arXiv:2003.00295) train it federatedly.
"""

import tensorflow as tf

_CHANNELS = (64, 128, 256, 512)
_BLOCKS = 2  # Of each number of channels.


def build(*, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
  """Returns image -> logits; uncompiled.

  A 7x7 convolution and a pooling of stride 2 each, four stages of two blocks
  of two 3x3 convolutions, normalized before them, and an average over the
  image. 3 channels and 100 classes make 11,227,812 parameters, as TFF's own
  ResNet-18 has them. Unlike TFF's there is no weight decay: its penalty would
  have to be a part of the loss.

  Args:
    input_shape: (height, width, channels).
    num_classes: Number of logits.
  """
  image = tf.keras.Input(input_shape)
  x = _activate(_convolve(image, _CHANNELS[0], size=7, stride=2))
  x = tf.keras.layers.MaxPool2D(3, strides=2, padding='same')(x)
  for stage, channels in enumerate(_CHANNELS):
    for number in range(_BLOCKS):
      is_first = stage == number == 0
      x = _block(x, channels, is_first=is_first)
  x = tf.keras.layers.GlobalAveragePooling2D()(_activate(x))
  logits = tf.keras.layers.Dense(
    num_classes,
    kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.01),
  )(x)
  return tf.keras.Model(image, logits)


def _block(x: tf.Tensor, channels: int, *, is_first: bool) -> tf.Tensor:
  """Returns x plus two convolutions of it; x is normalized already if first."""
  hidden = x if is_first else _activate(x)
  hidden = _convolve(hidden, channels, size=3)
  hidden = _convolve(_activate(hidden), channels, size=3)
  if x.shape[-1] != channels:
    x = tf.keras.layers.GroupNormalization()(_convolve(x, channels, size=1))
  return tf.keras.layers.Add()([x, hidden])


def _convolve(
  x: tf.Tensor, channels: int, *, size: int, stride: int = 1
) -> tf.Tensor:
  return tf.keras.layers.Conv2D(
    channels,
    size,
    strides=stride,
    padding='same',
    use_bias=False,
    kernel_initializer='he_normal',
  )(x)


def _activate(x: tf.Tensor) -> tf.Tensor:
  return tf.keras.layers.ReLU()(tf.keras.layers.GroupNormalization()(x))
