"""EMNIST: handwritten digits, or digits and letters; clients are the writers.

Caldas et al., "LEAF: a benchmark for federated settings" (arXiv:1812.01097),
as TFF serves it: 3,383 writers of 341,873 and 40,832 digits, or 3,400 writers
of 671,585 and 77,483 characters in 62 classes. Paper is white (1), ink dark.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import sqlite_clients
from tff_pipeline.data import stand_in

SHAPE = (28, 28, 1)
FILE = downloads.File(
  name='emnist_all.sqlite',
  url='https://storage.googleapis.com/tff-datasets-public/emnist_all.sqlite.lzma',
)
# Task -> number of classes, prefix of the splits.
_TASKS = {
  'emnist_digits': (10, 'digits_only'),
  'emnist_characters': (62, 'all'),
}


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the file."""
  del task
  downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the images: x uint8 [n, 28, 28, 1], y int32 [n]."""
  num_classes, prefix = _TASKS[task.name]
  if task.source is config.Source.STAND_IN:
    train, test = stand_in.images_by_client(SHAPE, num_classes=num_classes)
    client_test = test
  else:
    path = downloads.require(FILE, data_dir)
    format = _format(num_classes)
    train_part = sqlite_clients.read(
      path, f'{prefix}_train', format=format, max_clients=task.max_clients
    )
    test_part = sqlite_clients.read(
      path, f'{prefix}_test', format=format, max_clients=task.max_clients
    )
    train, test = train_part[1], test_part[1]
    client_test = sqlite_clients.by_client(train_part, test_part)
  return data_set.DataSet(
    train=train,
    test=test.examples,
    num_classes=num_classes,
    preprocessing='scale',
    client_test=client_test,
    is_stand_in=task.source is config.Source.STAND_IN,
  )


def _format(num_classes: int) -> sqlite_clients.Format:
  def encode(columns: sqlite_clients.Columns) -> sqlite_clients.Encoded:
    labels = columns['label']
    raw_files.check_labels('it', labels, num_classes=num_classes)
    grey = columns['pixels'] * np.float32(255.0)
    x = np.rint(grey)
    # The file has floats; bytes are a quarter of them, and lose nothing.
    if not np.all(np.abs(grey - x) < 1e-2) or x.min() < 0 or x.max() > 255:
      raise ValueError('its pixels are not 256 steps between 0 and 1')
    x = x.astype(np.uint8)[..., np.newaxis]
    return x, labels.astype(np.int32), None

  return sqlite_clients.Format(
    features={'pixels': (np.float32, SHAPE[:2]), 'label': (np.int64, ())},
    encode=encode,
  )
