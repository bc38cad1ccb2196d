"""CIFAR-100 dealt to 500 clients of 100 images, by Pachinko allocation.

Krizhevsky 2009; the clients are those of Reddi et al., "Adaptive federated
optimization" (arXiv:2003.00295), as TFF serves them. The 10,000 test images
belong to 100 other clients.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import sqlite_clients
from tff_pipeline.data import stand_in

SHAPE = (32, 32, 3)
NUM_CLASSES = 100
FILE = downloads.File(
  name='cifar100.sqlite',
  url='https://storage.googleapis.com/tff-datasets-public/cifar100.sqlite.lzma',
)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the file."""
  del task
  downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the images: x uint8 [n, 32, 32, 3], y int32 [n]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.images_by_client(SHAPE, num_classes=NUM_CLASSES)
  else:
    path = downloads.require(FILE, data_dir)
    _, train = sqlite_clients.read(
      path, 'train', format=_FORMAT, max_clients=task.max_clients
    )
    _, test = sqlite_clients.read(path, 'test', format=_FORMAT)
  return data_set.DataSet(
    train=train,
    test=test.examples,
    num_classes=NUM_CLASSES,
    preprocessing='crop',
    is_stand_in=is_stand_in,
  )


def _encode(columns: sqlite_clients.Columns) -> sqlite_clients.Encoded:
  x, labels = columns['image'], columns['label']
  raw_files.check_labels('it', labels, num_classes=NUM_CLASSES)
  if x.min() < 0 or x.max() > 255:
    raise ValueError('its pixels are not from 0 to 255')
  return x.astype(np.uint8), labels.astype(np.int32), None


_FORMAT = sqlite_clients.Format(
  features={'image': (np.int64, SHAPE), 'label': (np.int64, ())},
  encode=_encode,
)
