"""Shakespeare: the next character; clients are the speaking roles.

McMahan et al. 2017 (arXiv:1602.05629), with the vocabulary and sequences of
Reddi et al. (arXiv:2003.00295): each speech becomes bos, its bytes, eos, padded
to a multiple of 81 and cut there; x is the first 80 of a piece, y the last 80.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import sqlite_clients
from tff_pipeline.data import stand_in

SEQUENCE_LENGTH = 80
# The order fixes the ids; it is that of TFF's text generation tutorial.
VOCABULARY = (
  'dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#\'/37;?bfjnrvzBFJNRVZ"&*.26:\n'
  'aeimquyAEIMQUY]!%)-159\r'
)
PAD = 0  # Ids of characters start at 1.
OOV = len(VOCABULARY) + 1
BOS = len(VOCABULARY) + 2
EOS = len(VOCABULARY) + 3
NUM_IDS = len(VOCABULARY) + 4
FILE = downloads.File(
  name='shakespeare.sqlite',
  url='https://storage.googleapis.com/tff-datasets-public/shakespeare.sqlite.lzma',
)
_IDS = bytes(
  VOCABULARY.index(chr(byte)) + 1 if chr(byte) in VOCABULARY else OOV
  for byte in range(256)
)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the file."""
  del task
  downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns character ids: x and y uint8 [n, 80]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.tokens_by_client(
      SEQUENCE_LENGTH,
      num_ids=len(VOCABULARY),
      first=1,
      padding=PAD,
      dtype=np.uint8,
    )
    client_test = test
  else:
    path = downloads.require(FILE, data_dir)
    train_part, test_part = (
      sqlite_clients.read(
        path, split, format=FORMAT, max_clients=task.max_clients
      )
      for split in ('train', 'test')
    )
    train, test = train_part[1], test_part[1]
    client_test = sqlite_clients.by_client(train_part, test_part)
  return data_set.DataSet(
    train=train,
    test=test.examples,
    num_classes=NUM_IDS,
    objective='next_token',
    vocabulary_size=NUM_IDS,
    ignored_labels=(OOV,),
    client_test=client_test,
    is_stand_in=is_stand_in,
  )


def pieces(speech: bytes) -> np.ndarray:
  """Returns the ids of a speech in pieces of 81; uint8 [k, 81]."""
  width = SEQUENCE_LENGTH + 1
  ids = bytes([BOS]) + speech.translate(_IDS) + bytes([EOS])
  padding = bytes([PAD]) * (-len(ids) % width)
  return np.frombuffer(ids + padding, np.uint8).reshape(-1, width)


def _encode(columns: sqlite_clients.Columns) -> sqlite_clients.Encoded:
  speeches = [pieces(speech) for speech in columns['snippets']]
  whole = np.concatenate(speeches)
  counts = np.array([len(speech) for speech in speeches])
  return whole[:, :-1], whole[:, 1:], counts


FORMAT = sqlite_clients.Format(
  features={'snippets': (np.bytes_, ())}, encode=_encode
)
