"""What both StackOverflow tasks share: files, vocabularies, clients.

342,477 training users with 135,818,730 examples, 204,088 test users. That is
more than fits into memory: name how many clients you want with
`--task.max_clients`. They are read one by one through the file's index.
"""

from collections.abc import Callable
import io
import json
import pathlib
import tarfile

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import sqlite_clients

_URL = 'https://storage.googleapis.com/tff-datasets-public/'
FILE = downloads.File(
  name='stackoverflow.sqlite', url=_URL + 'stackoverflow.sqlite.lzma'
)
WORD_COUNTS = downloads.File(
  name='stackoverflow.word_count.tar.bz2',
  url=_URL + 'stackoverflow.word_count.tar.bz2',
  sha256='1dc00256d6e527c54b9756d968118378ae14e6692c0b3b6cad470cdd3f0c519c',
  also_at=('datasets/stackoverflow.word_count.tar.bz2',),
)
TAG_COUNTS = downloads.File(
  name='stackoverflow.tag_count.tar.bz2',
  url=_URL + 'stackoverflow.tag_count.tar.bz2',
  sha256='6fe281cec490d9384a290d560072438e7e2b377bbb823876ce7bd6f82696772d',
  also_at=('datasets/stackoverflow.tag_count.tar.bz2',),
)
NUM_WORDS = 10_000
NUM_TAGS = 500
TEST_EXAMPLES = 10_000  # As Reddi et al. 2021 evaluate.
_LARGEST_COUNTS = 1 << 30


def check_size(task: config.Task) -> None:
  """Raises `UsageError` if all clients are asked for."""
  if task.max_clients is None:
    raise validate.error(
      'task.max_clients',
      expected='a number of clients, since all 342,477 do not fit into memory',
      found='nothing',
      remedy='A user has about 400 examples',
    )


def read(
  path: pathlib.Path, *, format: sqlite_clients.Format, max_clients: int
) -> tuple[client_data.ClientData, client_data.Examples]:
  """Returns the first training clients, and the first test examples."""
  _, train = sqlite_clients.read(
    path, 'train', format=format, max_clients=max_clients
  )
  _, test = sqlite_clients.read(
    path, 'test', format=format, max_rows=TEST_EXAMPLES
  )
  return train, test.examples


def most_frequent_words(path: pathlib.Path) -> dict[bytes, int]:
  """Returns word -> rank from 0, of the 10,000 most frequent ones."""
  return _ranks(path, 'stackoverflow.word_count', _words, NUM_WORDS)


def most_frequent_tags(path: pathlib.Path) -> dict[bytes, int]:
  """Returns tag -> rank from 0, of the 500 that most users have used."""
  return _ranks(path, 'stackoverflow.tag_count', _tags, NUM_TAGS)


def _ranks(
  path: pathlib.Path,
  member: str,
  parse: Callable[[str, int], list[str]],
  size: int,
) -> dict[bytes, int]:
  with raw_files.complaints(path):
    found = parse(_member(path, member), size)
    ranks = {word.encode(): rank for rank, word in enumerate(found)}
    if len(ranks) != size:
      raise ValueError(f'it has {len(ranks)} entries of {size}')
  return ranks


def _member(path: pathlib.Path, name: str) -> str:
  """Returns a text in an archive; nothing is extracted to disk."""
  try:
    with tarfile.open(path, 'r:bz2') as archive:
      for member in archive:
        if member.isfile() and member.name.removeprefix('./') == name:
          if member.size > _LARGEST_COUNTS:
            raise ValueError(f'{name} has {member.size} bytes')
          return archive.extractfile(member).read().decode('utf-8')
  except tarfile.TarError as e:
    raise ValueError(str(e)) from e
  raise ValueError(f'it has no {name}')


def _words(text: str, size: int) -> list[str]:
  """Returns the first words of lines of word and count, most frequent first."""
  words = []
  for line in io.StringIO(text):
    word, _ = line.split()
    words.append(word)
    if len(words) == size:
      break
  return words


def _tags(text: str, size: int) -> list[str]:
  counts = json.loads(text)
  if not isinstance(counts, dict):
    raise ValueError('it is no table of counts')
  if not all(isinstance(count, int) for count in counts.values()):
    raise ValueError('a count is no whole number')
  return sorted(counts, key=counts.get, reverse=True)[:size]
