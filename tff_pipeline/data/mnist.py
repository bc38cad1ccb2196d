"""MNIST: 60,000 and 10,000 handwritten digits of 28x28.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
recognition", 1998. The file is Keras's `mnist.npz`, or one with the same
arrays. Keras itself deletes a copy that was packed anew, for its checksum.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import stand_in

SHAPE = (28, 28, 1)
NUM_CLASSES = 10
FILE = downloads.File(
  name='mnist.npz',
  url='https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz',
  sha256='731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1',
  also_at=('datasets/mnist.npz',),
)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the file."""
  del task
  downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the images: x uint8 [n, 28, 28, 1], y int32 [n]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.images(SHAPE, num_classes=NUM_CLASSES)
  else:
    train, test = _read(downloads.require(FILE, data_dir))
  return data_set.DataSet(
    train=train,
    test=test,
    num_classes=NUM_CLASSES,
    preprocessing='scale',
    is_stand_in=is_stand_in,
  )


def _read(path: pathlib.Path) -> stand_in.Pooled:
  pixels, labels = (np.uint8, (None, *SHAPE[:2])), (np.uint8, (None,))
  arrays = raw_files.read_npz(
    path,
    {'x_train': pixels, 'y_train': labels, 'x_test': pixels, 'y_test': labels},
  )
  with raw_files.complaints(path):
    return tuple(
      labelled_images(arrays[f'x_{part}'], arrays[f'y_{part}'])
      for part in ('train', 'test')
    )


def labelled_images(x: np.ndarray, y: np.ndarray) -> client_data.Examples:
  """Returns grey images with a channel and checked labels.

  Args:
    x: uint8 [n, 28, 28].
    y: uint8 [n], from 0 to 9.
  """
  raw_files.check_labels('the file', y, num_classes=NUM_CLASSES)
  return client_data.Examples(x[..., np.newaxis], y.astype(np.int32))
