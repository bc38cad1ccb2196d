"""Tiny files in the formats of the real data sets, written by tests."""

from collections.abc import Callable
import gzip
import io
import json
import pathlib
import sqlite3
import struct
import tarfile
from typing import Any

import numpy as np
import tensorflow as tf


def labelled_images(
  size: int, *, shape: tuple[int, ...] = (28, 28), num_classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
  """Returns random uint8 images and uint8 labels in which 0 and 9 occur."""
  rng = np.random.default_rng(size)
  x = rng.integers(0, 256, (size, *shape), dtype=np.uint8)
  y = rng.integers(0, num_classes, size, dtype=np.uint8)
  y[:2] = 0, num_classes - 1
  return x, y


def mnist(path: pathlib.Path, **changes: Any) -> dict[str, np.ndarray]:
  """Writes an mnist.npz of 7 and 3 images; `None` leaves an array out."""
  arrays: dict[str, Any] = {}
  for part, size in (('train', 7), ('test', 3)):
    arrays[f'x_{part}'], arrays[f'y_{part}'] = labelled_images(size)
  arrays |= changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return arrays


def idx(values: np.ndarray, **changes: Any) -> bytes:
  """Returns a gzipped idx file; sizes and header can be made to lie."""
  sizes = changes.get('sizes', values.shape)
  header = changes.get('header', (0, 0x08, values.ndim))
  packed = struct.pack('>HBB', *header) + struct.pack(f'>{len(sizes)}I', *sizes)
  return gzip.compress(packed + values.tobytes(), mtime=0)


def fashion_mnist(folder: pathlib.Path) -> dict[str, Any]:
  """Writes the four files; returns part -> images and labels."""
  folder.mkdir(parents=True)
  parts = {'train': labelled_images(7), 't10k': labelled_images(3)}
  for part, (x, y) in parts.items():
    (folder / f'{part}-images-idx3-ubyte.gz').write_bytes(idx(x))
    (folder / f'{part}-labels-idx1-ubyte.gz').write_bytes(idx(y))
  return parts


def cifar_batch(
  rows: np.ndarray,
  labels: list[int],
  *,
  shape: tuple[int, int] | None = None,
  dtype: bytes = b'u1',
  fortran: bool = False,
) -> bytes:
  """Returns a batch as Python 2 pickled it: strings, and NumPy's three names.

  Assembled by hand from the opcodes of pickle protocol 2: Python 3 would write
  bytes in another way.
  """

  def text(value: bytes) -> bytes:
    return b'T' + struct.pack('<i', len(value)) + value

  def number(value: int) -> bytes:
    return b'J' + struct.pack('<i', value)

  count, columns = shape or rows.shape
  array = (
    b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n'
    + (number(0) + b'\x85' + text(b'b') + b'tR(')
    + number(1)
    + (number(count) + number(columns) + b'\x86')
    + (b'cnumpy\ndtype\n(' + text(dtype) + number(0) + number(1) + b'tR(')
    + (number(3) + text(b'|') + b'NNN' + number(-1) + number(-1) + number(0))
    + b'tb'
    + (b'\x88' if fortran else b'\x89')
    + text(rows.tobytes('F' if fortran else 'C'))
    + b'tb'
  )
  entries = (
    text(b'data')
    + array
    + text(b'labels')
    + b']('
    + b''.join(number(label) for label in labels)
  )
  return b'\x80\x02}(' + entries + b'eu.'


def splits(
  make: Callable[[], dict[str, Any]], prefix: str = ''
) -> dict[str, dict[str, list[dict[str, Any]]]]:
  """Returns train and test of some clients, as `sqlite` takes them.

  The names are out of order, and a has no examples in test.

  Args:
    make: Returns an example.
    prefix: Of the names of the splits.
  """
  sizes = {'train': {'b': 3, 'c': 1, 'a': 2}, 'test': {'c': 1, 'b': 2}}
  return {
    prefix + split: {
      name: [make() for _ in range(size)] for name, size in clients.items()
    }
    for split, clients in sizes.items()
  }


def sqlite(
  path: pathlib.Path, splits: dict[str, dict[str, list[dict[str, Any]]]]
) -> None:
  """Writes split -> client -> examples in the format of TFF.

  Rows are interleaved: clients do not lie end to end.
  """
  with sqlite3.connect(path) as db:
    db.execute(
      'CREATE TABLE examples (split_name TEXT, client_id TEXT, '
      'serialized_example_proto BLOB)'
    )
    db.execute(
      'CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, '
      'num_examples INTEGER)'
    )
    db.execute('CREATE INDEX by_client ON examples (client_id, split_name)')
    for split, clients in splits.items():
      rows = [
        (number, split, client, serialized(example))
        for client, examples in clients.items()
        for number, example in enumerate(examples)
      ]
      for _, *row in sorted(rows, key=lambda row: row[0]):
        db.execute('INSERT INTO examples VALUES (?, ?, ?)', row)
      for client, examples in clients.items():
        db.execute(
          'INSERT INTO client_metadata VALUES (?, ?, ?)',
          (client, split, len(examples)),
        )
  db.close()


def serialized(example: dict[str, Any]) -> bytes:
  """Returns a `tf.train.Example` of bytes, floats and integers."""
  features = {}
  for name, value in example.items():
    if isinstance(value, bytes):
      feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    elif np.issubdtype(np.asarray(value).dtype, np.floating):
      floats = np.ravel(value).tolist()
      feature = tf.train.Feature(float_list=tf.train.FloatList(value=floats))
    else:
      whole = np.ravel(value).tolist()
      feature = tf.train.Feature(int64_list=tf.train.Int64List(value=whole))
    features[name] = feature
  message = tf.train.Example(features=tf.train.Features(feature=features))
  return message.SerializeToString()


def tar(content: dict[str, bytes], *, mode: str) -> bytes:
  """Returns an archive, 'w:gz' or 'w:bz2', of names and contents."""
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode=mode) as archive:
    for name, data in content.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return out.getvalue()


def vocabularies(folder: pathlib.Path, words: list[str], tags: list[str]):
  """Writes StackOverflow's counts, most frequent first."""
  lines = ''.join(f'{w} {len(words) - i}\n' for i, w in enumerate(words))
  counts = {tag: len(tags) - i for i, tag in reversed(list(enumerate(tags)))}
  for name, text in (('word', lines), ('tag', json.dumps(counts))):
    member = f'stackoverflow.{name}_count'
    packed = tar({member: text.encode()}, mode='w:bz2')
    (folder / f'{member}.tar.bz2').write_bytes(packed)
