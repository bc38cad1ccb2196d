"""StackOverflow: the tags of a post from its words; clients are the users.

The task of Reddi et al. (arXiv:2003.00295): a bag of the 10,000 most frequent
words, normalized, 500 tags, recall at 5. A bag is kept as the ids of its words,
since 10,000 floats an example would be 20 times as much; they become a bag in
the model (`models.preprocessing`).
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import sqlite_clients
from tff_pipeline.data import stackoverflow
from tff_pipeline.data import stand_in

# Words kept of a post; the rest of a longer one is cut off.
MAX_WORDS = 500
PAD = 0  # Ids of words start at 1; unknown words are left out.


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds or downloads the files."""
  stackoverflow.check_size(task)
  downloads.require(stackoverflow.WORD_COUNTS, data_dir)
  downloads.require(stackoverflow.TAG_COUNTS, data_dir)
  downloads.require(stackoverflow.FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns word ids x int16 [n, 500], and y uint8 [n, 500], 1 for a tag."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, by_client = stand_in.tags_by_client(
      MAX_WORDS,
      num_words=stackoverflow.NUM_WORDS,
      num_tags=stackoverflow.NUM_TAGS,
      dtype=np.int16,
    )
    test = by_client.examples
  else:
    words = stackoverflow.most_frequent_words(
      downloads.require(stackoverflow.WORD_COUNTS, data_dir)
    )
    tags = stackoverflow.most_frequent_tags(
      downloads.require(stackoverflow.TAG_COUNTS, data_dir)
    )
    train, test = stackoverflow.read(
      downloads.require(stackoverflow.FILE, data_dir),
      format=format_with(words, tags),
      max_clients=task.max_clients,
    )
  return data_set.DataSet(
    train=train,
    test=test,
    num_classes=stackoverflow.NUM_TAGS,
    objective='tags',
    preprocessing='bag_of_words',
    vocabulary_size=stackoverflow.NUM_WORDS,
    is_stand_in=is_stand_in,
  )


def format_with(
  words: dict[bytes, int], tags: dict[bytes, int]
) -> sqlite_clients.Format:
  """Returns how an example is read, for vocabularies: word -> rank from 0."""

  def encode(columns: sqlite_clients.Columns) -> sqlite_clients.Encoded:
    size = len(columns['tokens'])
    x = np.full((size, MAX_WORDS), PAD, np.int16)
    y = np.zeros((size, stackoverflow.NUM_TAGS), np.uint8)
    for row, (tokens, title, tag_list) in enumerate(
      zip(columns['tokens'], columns['title'], columns['tags'], strict=True)
    ):
      text = (tokens + b' ' + title).split()
      known = [words[word] + 1 for word in text if word in words][:MAX_WORDS]
      x[row, : len(known)] = known
      y[row, [tags[t] for t in tag_list.split(b'|') if t in tags]] = 1
    return x, y, None

  return sqlite_clients.Format(
    features={name: (np.bytes_, ()) for name in ('tokens', 'title', 'tags')},
    encode=encode,
  )
