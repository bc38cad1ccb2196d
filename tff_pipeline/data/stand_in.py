"""Generated examples in the place of a data set, for tests and smoke runs.

They have the shapes, dtypes and structure of the real data and can be learned
from, but an accuracy on them means nothing. They are the same every time.
"""

import numpy as np

from tff_pipeline.data import client_data

_SEED = 0x57A4
_POOLED = (600, 200)  # Training and test examples.
_CLIENTS = 30
_MEAN_CLIENT_EXAMPLES = 12
_CONTRAST = 60.0  # Of a class's pattern, in grey levels out of 255.
_NOISE = 40.0

Pooled = tuple[client_data.Examples, client_data.Examples]
ByClient = tuple[client_data.ClientData, client_data.ClientData]


def images(shape: tuple[int, ...], *, num_classes: int) -> Pooled:
  """Returns train and test images, uint8 [n, *shape], labels int32 [n].

  Each class is one smooth pattern, under noise.
  """
  rng = np.random.default_rng(_SEED)
  parts = _split_sizes(num_classes)
  patterns = _patterns(rng, shape, num_classes)
  return tuple(_images(rng, patterns, size) for size in parts)


def images_by_client(shape: tuple[int, ...], *, num_classes: int) -> ByClient:
  """Returns the same kind of images, as clients with a style of their own."""
  rng = np.random.default_rng(_SEED)
  patterns = _patterns(rng, shape, num_classes)

  def draw(size: int) -> client_data.Examples:
    return _images(rng, patterns, size)

  return _by_client(rng, draw)


def tokens_by_client(
  length: int, *, num_ids: int, first: int, padding: int, dtype: type
) -> ByClient:
  """Returns sequences x and the tokens that follow y, both [n, length].

  The next token is a function of the last one, but for noise. Sequences end in
  padding at a random place.

  Args:
    length: Positions in a sequence.
    num_ids: Tokens lie in first ... first + num_ids - 1.
    first: The first id.
    padding: The padding id.
    dtype: Of x and y.
  """
  rng = np.random.default_rng(_SEED)
  follower = rng.permutation(num_ids)

  def draw(size: int) -> client_data.Examples:
    whole = np.empty((size, length + 1), np.int64)
    whole[:, 0] = rng.integers(0, num_ids, size)
    for position in range(length):
      known = follower[whole[:, position]]
      noise = rng.integers(0, num_ids, size)
      whole[:, position + 1] = np.where(rng.random(size) < 0.8, known, noise)
    ends = rng.integers(length // 2, length + 2, (size, 1))
    text = np.where(np.arange(length + 1) < ends, whole + first, padding)
    return client_data.Examples(
      text[:, :-1].astype(dtype), text[:, 1:].astype(dtype)
    )

  return _by_client(rng, draw)


def tags_by_client(
  length: int, *, num_words: int, num_tags: int, dtype: type
) -> ByClient:
  """Returns bags of word ids [n, length], 0 for none, and 0/1 tags, uint8.

  A tag puts words of its own into the bag.
  """
  rng = np.random.default_rng(_SEED)

  def draw(size: int) -> client_data.Examples:
    tags = rng.integers(0, num_tags, (size, 2))
    own = 1 + (tags[:, :1] * 7 + rng.integers(0, 7, (size, length))) % num_words
    words = rng.integers(1, num_words + 1, (size, length))
    x = np.where(rng.random((size, length)) < 0.5, own, words)
    x[np.arange(length) >= rng.integers(1, length + 1, (size, 1))] = 0
    y = np.zeros((size, num_tags), np.uint8)
    np.put_along_axis(y, tags, 1, axis=1)
    return client_data.Examples(x.astype(dtype), y)

  return _by_client(rng, draw)


def rows(num_features: int, *, num_classes: int) -> Pooled:
  """Returns float32 rows around a centre of their class, labels int32."""
  rng = np.random.default_rng(_SEED)
  centres = rng.normal(size=(num_classes, num_features))
  return tuple(_rows(rng, centres, size) for size in _split_sizes(num_classes))


def arrays_by_client(
  shape: tuple[int, ...], *, num_classes: int, clients: int
) -> ByClient:
  """Returns float32 arrays around a centre of their class, as clients."""
  rng = np.random.default_rng(_SEED)
  centres = rng.normal(size=(num_classes, *shape))
  return _by_client(
    rng, lambda size: _rows(rng, centres, size), clients=clients
  )


def _split_sizes(num_classes: int) -> tuple[int, int]:
  return tuple(max(size, 2 * num_classes) for size in _POOLED)


def _labels(
  rng: np.random.Generator, size: int, num_classes: int
) -> np.ndarray:
  # Every class occurs where there is room for it.
  return rng.permutation(np.arange(size) % num_classes).astype(np.int32)


def _patterns(
  rng: np.random.Generator, shape: tuple[int, ...], num_classes: int
) -> np.ndarray:
  """Returns one smooth image of deviation 1 a class; [classes, *shape]."""
  height, width, channels = shape
  coarse = rng.normal(size=(num_classes, 4, 4, channels))
  rows = np.arange(height) * 4 // height
  columns = np.arange(width) * 4 // width
  return coarse[:, rows][:, :, columns]


def _images(
  rng: np.random.Generator, patterns: np.ndarray, size: int
) -> client_data.Examples:
  y = _labels(rng, size, len(patterns))
  noise = rng.normal(0.0, _NOISE, (size, *patterns.shape[1:]))
  grey = 128.0 + _CONTRAST * patterns[y] + noise
  return client_data.Examples(np.clip(grey, 0, 255).astype(np.uint8), y)


def _rows(
  rng: np.random.Generator, centres: np.ndarray, size: int
) -> client_data.Examples:
  y = _labels(rng, size, len(centres))
  x = centres[y] + rng.normal(size=(size, *centres.shape[1:]))
  return client_data.Examples(x.astype(np.float32), y)


def _by_client(rng, draw, *, clients: int = _CLIENTS) -> ByClient:
  """Returns train and test clients of unequal sizes, none empty."""
  sizes = 2 + rng.poisson(_MEAN_CLIENT_EXAMPLES - 2, clients)
  parts = []
  for part in (sizes, np.maximum(sizes // 4, 1)):
    offsets = np.concatenate([[0], np.cumsum(part)]).astype(np.int64)
    parts.append(client_data.ClientData(draw(int(offsets[-1])), offsets))
  return tuple(parts)
