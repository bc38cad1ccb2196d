"""Generated SQLite files in the format of TFF's data sets, small or large."""

from collections.abc import Iterator
import pathlib
import sqlite3

import numpy as np

FEATURES = 64
CLASSES = 10
_TABLES = (
  'CREATE TABLE examples (split_name TEXT NOT NULL, client_id TEXT NOT NULL,'
  ' serialized_example_proto BLOB NOT NULL)',
  'CREATE TABLE client_metadata (client_id TEXT NOT NULL,'
  ' split_name TEXT NOT NULL, num_examples INTEGER NOT NULL)',
)
INDEX = 'CREATE INDEX by_client ON examples (client_id)'


def serialized(x: np.ndarray, y: int) -> bytes:
  """Returns a tf.train.Example with the features pixels and label."""
  import tensorflow as tf

  feature = {
    'pixels': tf.train.Feature(float_list=tf.train.FloatList(value=x)),
    'label': tf.train.Feature(int64_list=tf.train.Int64List(value=[y])),
  }
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  return example.SerializeToString(deterministic=True)


class _Serializer:
  """Makes a million of them in seconds: only the values' bytes change."""

  def __init__(self) -> None:
    marks = np.full(FEATURES, 7.0, np.float32)
    self._template = serialized(marks, 5)
    self._pixels = self._template.index(marks.tobytes())
    # A label below 128 is one byte, the one that changes with it.
    other = serialized(marks, 6)
    (self._label,) = [
      i
      for i, (a, b) in enumerate(zip(self._template, other, strict=True))
      if a != b
    ]

  def __call__(self, x: np.ndarray, y: int) -> bytes:
    made = bytearray(self._template)
    made[self._pixels : self._pixels + 4 * FEATURES] = x.tobytes()
    made[self._label] = y
    return bytes(made)


def client(number: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns a client's features and labels; 5 to 15 rows.

  A label moves the mean of its own few features, so that there is something to
  learn.
  """
  rng = np.random.default_rng([number, 77])
  y = rng.integers(0, CLASSES, rng.integers(5, 16))
  x = rng.standard_normal((len(y), FEATURES), np.float32)
  x[np.arange(len(y)), y] += 2.0
  return x, y


def write(
  path: pathlib.Path,
  *,
  clients: int,
  test_clients: int = 20,
  index: bool = True,
) -> pathlib.Path:
  """Writes a file with these clients; ids sort as their numbers do."""
  serialize = _Serializer()

  def rows(split: str, numbers: range) -> Iterator[tuple[str, str, bytes]]:
    for number in numbers:
      for x, y in zip(*client(number), strict=True):
        yield split, f'user{number:09d}', serialize(x, int(y))

  splits = {
    'train': range(clients),
    'test': range(clients, clients + test_clients),
  }
  with sqlite3.connect(path) as connection:
    for table in _TABLES:
      connection.execute(table)
    for split, numbers in splits.items():
      connection.executemany(
        'INSERT INTO examples VALUES (?, ?, ?)', rows(split, numbers)
      )
      connection.executemany(
        'INSERT INTO client_metadata VALUES (?, ?, ?)',
        ((f'user{n:09d}', split, len(client(n)[1])) for n in numbers),
      )
    if index:
      connection.execute(INDEX)
  connection.close()
  return path
