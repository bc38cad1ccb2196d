"""What is done to a batch before the model, as a part of the model.

Images stay bytes in memory, in the feed and in the graph up to here: a float32
copy would be four times as large, and 1.1 GB for EMNIST. As layers, these steps
are also in the saved model, which therefore takes raw images.
"""

from collections.abc import Callable

from keras.src import backend
import tensorflow as tf

_CROP = 24


def wrap(
  name: str,
  factory: Callable[[tuple[int, ...]], tf.keras.Model],
  *,
  input_spec: tf.TensorSpec,
  vocabulary_size: int | None = None,
) -> Callable[[], tf.keras.Model]:
  """Returns a factory of the model with its preprocessing in front.

  - none: the model takes x as it is.
  - scale: bytes become float32 in [0, 1].
  - crop: 32x32 images become 24x24, at random and flipped at random in
    training, the centre otherwise; then each image is standardized.
  - bag_of_words: word ids from 1, 0 for none, become each word's share.

  Args:
    name: One of these.
    factory: Builds the model for an input shape.
    input_spec: Spec of a batch of x.
    vocabulary_size: Number of words in a bag.
  """
  shape = tuple(input_spec.shape[1:])
  if name == 'none':
    return lambda: factory(shape)
  layers = {
    'scale': lambda: [tf.keras.layers.Rescaling(1.0 / 255.0)],
    'crop': lambda: [CropAndFlip(_CROP), StandardizeImages()],
    'bag_of_words': lambda: [BagOfWords(vocabulary_size)],
  }[name]

  def build() -> tf.keras.Model:
    raw = tf.keras.Input(shape, dtype=input_spec.dtype)
    ready = raw
    for layer in layers():
      ready = layer(ready)
    model = factory(tuple(ready.shape[1:]))
    return tf.keras.Model(raw, model(ready))

  return build


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
    self._random_generator = backend.RandomGenerator(
      seed=0, rng_type='stateless'
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


class BagOfWords(tf.keras.layers.Layer):
  """Makes the ids of a text's words into the share of each word in it."""

  def __init__(self, vocabulary_size: int, **kwargs: object):
    super().__init__(**kwargs)
    self.vocabulary_size = vocabulary_size

  def get_config(self) -> dict[str, object]:
    """Returns the constructor's arguments."""
    return {**super().get_config(), 'vocabulary_size': self.vocabulary_size}

  def call(self, ids: tf.Tensor) -> tf.Tensor:
    """Returns float32 [n, words] of ids [n, length]; zeros for no words."""
    ids = tf.cast(ids, tf.int32)
    shape = [tf.shape(ids)[0], self.vocabulary_size + 1]
    # One flat row of counters: each example's are `vocabulary_size` + 1.
    first = tf.range(shape[0])[:, tf.newaxis] * shape[1]
    ones = tf.ones_like(ids, tf.float32)
    counts = tf.math.unsorted_segment_sum(
      ones, ids + first, shape[0] * shape[1]
    )
    counts = tf.reshape(counts, shape)[:, 1:]
    total = tf.reduce_sum(counts, axis=-1, keepdims=True)
    return tf.math.divide_no_nan(counts, total)

  def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns [n, words]."""
    return (shape[0], self.vocabulary_size)
