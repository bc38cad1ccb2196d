"""Fashion-MNIST: 60,000 and 10,000 articles of clothing, 28x28.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
machine learning algorithms" (arXiv:1708.07747). The files are Keras's, in
LeCun's idx format.
"""

import pathlib

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import mnist
from tff_pipeline.data import raw_files
from tff_pipeline.data import stand_in

_URL = 'https://storage.googleapis.com/tensorflow/tf-keras-datasets/'


def _file(name: str) -> downloads.File:
  return downloads.File(
    name=f'fashion-mnist/{name}',
    url=_URL + name,
    also_at=(f'datasets/fashion-mnist/{name}',),
  )


# Of train and test: images, labels.
FILES = tuple(
  (
    _file(f'{part}-images-idx3-ubyte.gz'),
    _file(f'{part}-labels-idx1-ubyte.gz'),
  )
  for part in ('train', 't10k')
)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the files."""
  del task
  for part in FILES:
    for file in part:
      downloads.require(file, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the images: x uint8 [n, 28, 28, 1], y int32 [n]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.images(mnist.SHAPE, num_classes=mnist.NUM_CLASSES)
  else:
    train, test = (_read(*part, data_dir=data_dir) for part in FILES)
  return data_set.DataSet(
    train=train,
    test=test,
    num_classes=mnist.NUM_CLASSES,
    preprocessing='scale',
    is_stand_in=is_stand_in,
  )


def _read(
  images: downloads.File, labels: downloads.File, *, data_dir: pathlib.Path
) -> client_data.Examples:
  labels_path = downloads.require(labels, data_dir)
  y = raw_files.read_idx(labels_path, shape=(None,))
  x = raw_files.read_idx(
    downloads.require(images, data_dir), shape=(None, *mnist.SHAPE[:2])
  )
  with raw_files.complaints(labels_path):
    return mnist.labelled_images(x, y)
