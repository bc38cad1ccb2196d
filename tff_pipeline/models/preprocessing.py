"""What is done to a batch before the model, as a part of the model.

Images stay bytes in memory, in the feed and in the graph up to here: a float32
copy would be four times as large, and 1.1 GB for EMNIST. As layers, these steps
are also in the saved model, which therefore takes raw images.
"""

from collections.abc import Callable

import tensorflow as tf

_CROP = 24


def wrap(
  name: str,
  factory: Callable[[tuple[int, ...]], tf.keras.Model],
  *,
  input_spec: tf.TensorSpec,
) -> Callable[[], tf.keras.Model]:
  """Returns a factory of the model with its preprocessing in front.

  - none: the model takes x as it is.
  - scale: bytes become float32 in [0, 1].
  - crop: 32x32 images become 24x24, at random and flipped at random in
    training, the centre otherwise; then each image is standardized.

  Args:
    name: One of these.
    factory: Builds the model for an input shape.
    input_spec: Spec of a batch of x.
  """
  shape = tuple(input_spec.shape[1:])
  if name == 'none':
    return lambda: factory(shape)
  layers = {'scale': _scale, 'crop': _crop}[name]

  def build() -> tf.keras.Model:
    raw = tf.keras.Input(shape, dtype=input_spec.dtype)
    ready = raw
    for layer in layers():
      ready = layer(ready)
    model = factory(tuple(ready.shape[1:]))
    return tf.keras.Model(raw, model(ready))

  return build


def _scale() -> list[tf.keras.layers.Layer]:
  return [tf.keras.layers.Rescaling(1.0 / 255.0)]


def _crop() -> list[tf.keras.layers.Layer]:
  return [CropAndFlip(_CROP), StandardizeImages()]


class CropAndFlip(tf.keras.layers.Layer):
  """Crops images to a square: at random in training, the centre otherwise.

  Every image of a batch has a window and a flip of its own. Both are functions
  of the layer's seed, which `keyed_layers` derives from the client's key and
  the step: fresh in every epoch, and the same when a round is replayed.
  """

  def __init__(self, size: int, **kwargs: object):
    super().__init__(**kwargs)
    self.size = size
    # `keyed_layers` looks for this name; here it stands for an eager call.
    self._random_generator = tf.keras.backend.RandomGenerator(
      seed=None, rng_type='stateless'
    )

  def get_config(self) -> dict[str, object]:
    """Returns the constructor's arguments."""
    return {**super().get_config(), 'size': self.size}

  def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
    """Returns [n, size, size, channels] of [n, height, width, channels]."""
    if not training:
      return self._centre(images)
    seed = self._random_generator.make_seed_for_stateless_op()
    return self._random(images, seed)

  def _centre(self, images: tf.Tensor) -> tf.Tensor:
    top, left = ((full - self.size) // 2 for full in images.shape[1:3])
    return images[:, top : top + self.size, left : left + self.size]

  def _random(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    count = tf.shape(images)[0]
    height, width = images.shape[1:3]
    limits = [height - self.size + 1, width - self.size + 1, 2]
    draws = tf.random.stateless_uniform([3, count], seed)
    top, left, flip = (
      tf.cast(draw * limit, tf.int32)
      for draw, limit in zip(tf.unstack(draws), limits, strict=True)
    )
    window = tf.range(self.size)[tf.newaxis]
    columns = tf.where(flip[:, tf.newaxis] > 0, window[:, ::-1], window)
    cropped = tf.gather(images, top[:, tf.newaxis] + window, batch_dims=1)
    return tf.gather(
      cropped, _beside(left[:, tf.newaxis] + columns, self.size), batch_dims=2
    )


def _beside(columns: tf.Tensor, rows: int) -> tf.Tensor:
  """Returns the columns of an image once for each of its rows."""
  return tf.repeat(columns[:, tf.newaxis], rows, axis=1)


class StandardizeImages(tf.keras.layers.Layer):
  """Gives each image mean 0 and deviation 1, as float32."""

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Returns the images, each by its own pixels."""
    return tf.image.per_image_standardization(tf.cast(images, tf.float32))
