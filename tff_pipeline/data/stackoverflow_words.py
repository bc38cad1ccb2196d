"""StackOverflow: the next word; clients are the users.

The task of Reddi et al. (arXiv:2003.00295): the 10,000 most frequent words,
sentences of 20, an accuracy without padding and unknown words. A sentence
becomes bos, at most 20 words, and eos if there is room, padded to 21.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import sqlite_clients
from tff_pipeline.data import stackoverflow
from tff_pipeline.data import stand_in

SEQUENCE_LENGTH = 20
PAD = 0  # Ids of words start at 1.
OOV = stackoverflow.NUM_WORDS + 1
BOS = stackoverflow.NUM_WORDS + 2
EOS = stackoverflow.NUM_WORDS + 3
NUM_IDS = stackoverflow.NUM_WORDS + 4


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the files."""
  stackoverflow.check_size(task)
  downloads.require(stackoverflow.WORD_COUNTS, data_dir)
  downloads.require(stackoverflow.FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns word ids: x and y int16 [n, 20]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, by_client = stand_in.tokens_by_client(
      SEQUENCE_LENGTH,
      num_ids=stackoverflow.NUM_WORDS,
      first=1,
      padding=PAD,
      dtype=np.int16,
    )
    test = by_client.examples
  else:
    ranks = stackoverflow.most_frequent_words(
      downloads.require(stackoverflow.WORD_COUNTS, data_dir)
    )
    train, test = stackoverflow.read(
      downloads.require(stackoverflow.FILE, data_dir),
      format=format_with(ranks),
      max_clients=task.max_clients,
    )
  return data_set.DataSet(
    train=train,
    test=test,
    num_classes=NUM_IDS,
    objective='next_token',
    vocabulary_size=NUM_IDS,
    ignored_labels=(OOV,),
    is_stand_in=is_stand_in,
  )


def format_with(ranks: dict[bytes, int]) -> sqlite_clients.Format:
  """Returns how an example is read, for a vocabulary: word -> rank from 0."""

  def sentence(tokens: bytes) -> list[int]:
    words = tokens.split(b' ')[:SEQUENCE_LENGTH] if tokens else []
    ids = [BOS, *(ranks.get(word, OOV - 1) + 1 for word in words)]
    if len(words) < SEQUENCE_LENGTH:
      ids.append(EOS)
    return ids + [PAD] * (SEQUENCE_LENGTH + 1 - len(ids))

  def encode(columns: sqlite_clients.Columns) -> sqlite_clients.Encoded:
    whole = np.array([sentence(s) for s in columns['tokens']], np.int16)
    return whole[:, :-1], whole[:, 1:], None

  return sqlite_clients.Format(
    features={'tokens': (np.bytes_, ())}, encode=encode
  )
