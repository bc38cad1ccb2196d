"""The write-ahead record of rounds: what may have been released, and how often.

A JSON line is on disk before its round starts, so no crash can lose a round
that released something. Noise is a function of noise key and round: a round
replayed under the same key releases the same values again, provided that it is
computed in the same way, and costs nothing more. Under another key it is one
more release from the same cohort, which `Ledger.release_counts` reports.
"""

import collections
from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
import re
from typing import BinaryIO

from tff_pipeline import validate

_NO_ENTRY = 'is not {"round": N, "attempt": N, "noise_key": TEXT}'
_KEY_BEGUN = re.compile(rb'[\w:]*"?')

NO_NOISE = 'none'
"""The noise key's fingerprint of a run without noise."""


@dataclasses.dataclass(frozen=True)
class Releases:
  """What the rounds 1..rounds of a run released.

  Attributes:
    rounds: Number of rounds.
    repeated: Round -> distinct noise keys that it ran under, of those rounds
      that ran under more than one. A release under another key is one more
      release from the same cohort.
  """

  rounds: int
  repeated: Mapping[int, int] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    for round_num, keys in self.repeated.items():
      if not 1 <= round_num <= self.rounds or keys < 2:
        raise ValueError(f'not what {self.rounds} rounds released: {self}')
    if self.rounds < 0:
      raise ValueError(f'not what rounds released: {self}')

  def by_keys(self) -> dict[int, int]:
    """Returns k -> how many rounds ran under k noise keys, k ascending.

    >>> Releases(40, {29: 2, 30: 2}).by_keys()
    {1: 38, 2: 2}
    """
    counts = collections.Counter(self.repeated.values())
    counts[1] = self.rounds - len(self.repeated)
    return {keys: counts[keys] for keys in sorted(counts) if counts[keys]}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One started round.

  Attributes:
    round: 1-based round number.
    attempt: 1 for the first time that this round started, then 2, 3, …
    noise_key: Fingerprint of the noise key; not the key.
  """

  round: int
  attempt: int
  noise_key: str


class Ledger:
  """Started rounds, on disk and in memory."""

  def __init__(self, path: pathlib.Path, *, noise_key: str | None) -> None:
    self._path = path
    self._noise_key = noise_key
    self._identity: tuple[int, ...] = ()
    self._entries: list[Entry] = []
    self._attempt_keys: dict[int, list[str]] = {}  # Rounds 1, 2, … in order.
    self._repeated: dict[int, int] = {}

  @classmethod
  def open(cls, path: str | os.PathLike[str], *, noise_key: str) -> 'Ledger':
    """Opens a ledger for appending, and creates or mends it.

    A last line without its end is cut off unless it is a whole entry: its
    round never started, since `append` had not returned.

    Args:
      path: The ledger file; its directory exists.
      noise_key: Fingerprint of the noise key that rounds will run under, or
        `NO_NOISE`.

    Raises:
      UsageError: If the content is not a ledger.
    """
    if not noise_key:
      raise ValueError('the fingerprint of the noise key is empty')
    path = pathlib.Path(path)
    if not path.exists():
      path.touch()
      _sync_directory(path.parent)
    ledger = cls(path, noise_key=noise_key)
    content = path.read_bytes()
    mended = ledger._load(content)
    if mended != content:
      _mend(path, old=content, new=mended)
    with path.open('rb') as file:
      ledger._identity = _identity(file)
    return ledger

  @classmethod
  def read(cls, path: str | os.PathLike[str]) -> 'Ledger':
    """Reads a ledger, of a running run too, and changes nothing.

    Raises:
      UsageError: If there is none or the content is not a ledger.
    """
    path = pathlib.Path(path)
    ledger = cls(path, noise_key=None)
    try:
      content = path.read_bytes()
    except OSError as error:
      raise validate.UsageError(
        f'{path}: cannot read the ledger: {error.strerror}'
      ) from None
    ledger._load(content)
    return ledger

  @property
  def entries(self) -> tuple[Entry, ...]:
    """Every start of a round, in order."""
    return tuple(self._entries)

  @property
  def last_round(self) -> int:
    """The highest round that has started; 0 before the first."""
    return len(self._attempt_keys)

  def append(self, round_num: int) -> int:
    """Records that a round starts; it is on disk when this returns.

    Args:
      round_num: The next round, or one that has started before.

    Returns:
      The attempt: 1 + earlier attempts at this round.

    Raises:
      UsageError: If earlier rounds are missing from the ledger.
      OSError: If it cannot be written, or is not the file that was opened: a
        new one in its place would lack what was released before.
    """
    if self._noise_key is None:
      raise ValueError(f'{self._path} was opened for reading')
    attempt = len(self._attempt_keys.get(round_num, ())) + 1
    entry = Entry(round_num, attempt, self._noise_key)
    wrong = self._misfit(entry)
    if wrong:
      raise validate.UsageError(
        f'{self._path}: cannot record a round that {wrong}. Restore the '
        'ledger, or start a new run.'
      )
    with open(os.open(self._path, os.O_WRONLY | os.O_APPEND), 'ab') as file:
      if _identity(file) != self._identity:
        raise OSError(
          f'{self._path} was replaced or written to by somebody else'
        )
      file.write(_line(entry))
      _sync(file)
      self._identity = _identity(file)
    self._add(entry)
    return attempt

  def replays(self) -> dict[int, int]:
    """Returns round -> attempts beyond the first, of the replayed rounds."""
    return {r: len(k) - 1 for r, k in self._attempt_keys.items() if len(k) > 1}

  def release_counts(self, rounds: int) -> Releases:
    """Returns what the rounds 1..rounds released, for `accounting`.

    Raises:
      UsageError: If the ledger does not know all of these rounds.
    """
    if rounds > self.last_round:
      raise validate.UsageError(
        f'{self._path}: {rounds} rounds are to be priced, but the ledger ends '
        f'with round {self.last_round}'
      )
    return Releases(
      rounds, {r: keys for r, keys in self._repeated.items() if r <= rounds}
    )

  def counts_after_resume(self, completed: int) -> Releases:
    """Returns what all recorded rounds released once they have run again.

    For `calibration.max_rounds` at the start of a run: rounds after the
    checkpoint are going to be replayed, and under a new noise key each replay
    is another release.

    Args:
      completed: The round of the checkpoint; later rounds run again.
    """
    repeated = dict(self._repeated)
    for round_num in range(completed + 1, self.last_round + 1):
      keys = len({*self._attempt_keys[round_num], self._noise_key})
      if keys > 1:
        repeated[round_num] = keys
    return Releases(self.last_round, repeated)

  def _load(self, content: bytes) -> bytes:
    """Adds all entries and returns the content as it should be.

    An unended last line counts if it is a whole entry, which can only make
    epsilon larger. It is cut off if it is the beginning of the next entry, and
    refused if it is anything else: the entry of a round that ran was damaged.
    """
    end = content.rfind(b'\n') + 1
    lines, tail = content[:end].split(b'\n')[:-1], content[end:]
    cut_off = []
    if tail and _mapping(tail) is None:
      cut_off.append(tail)
    elif tail:
      lines.append(tail)
    for number, line in enumerate(lines, start=1):
      entry = _entry(line)
      wrong = _NO_ENTRY if entry is None else self._misfit(entry)
      if wrong:
        raise self._damaged(number, wrong)
      self._add(entry)
    if not all(map(self._begins_entry, cut_off)):
      raise self._damaged(len(lines) + 1, _NO_ENTRY)
    return b''.join(line + b'\n' for line in lines)

  def _damaged(self, number: int, wrong: str) -> validate.UsageError:
    return validate.UsageError(
      f'{self._path}: line {number} {wrong}. The ledger was changed or '
      'damaged: restore it, or start a new run elsewhere.'
    )

  def _begins_entry(self, tail: bytes) -> bool:
    """Returns whether a crash while an entry was written can leave this.

    A file system may have made room for more than was written: zeros.
    """
    written = tail.rstrip(b'\0')
    for round_num in range(1, self.last_round + 2):
      attempt = len(self._attempt_keys.get(round_num, ())) + 1
      head = _line(Entry(round_num, attempt, ''))[: -len(b'"}\n')]
      if head.startswith(written):
        return True
      if written.startswith(head):
        return _KEY_BEGUN.fullmatch(written[len(head) :]) is not None
    return False

  def _misfit(self, entry: Entry) -> str:
    """Returns why this entry cannot come next; empty if it can."""
    if not 1 <= entry.round <= self.last_round + 1:
      return (
        f'starts round {entry.round} when round {self.last_round} was the last '
        'one: rounds are missing, so epsilon would be too small'
      )
    earlier = len(self._attempt_keys.get(entry.round, ()))
    if entry.attempt != earlier + 1:
      return (
        f'is attempt {entry.attempt} at round {entry.round} after {earlier} '
        'attempts'
      )
    return ''

  def _add(self, entry: Entry) -> None:
    self._entries.append(entry)
    keys = self._attempt_keys.setdefault(entry.round, [])
    keys.append(entry.noise_key)
    if len(set(keys)) > 1:
      self._repeated[entry.round] = len(set(keys))


def _line(entry: Entry) -> bytes:
  return json.dumps(dataclasses.asdict(entry)).encode() + b'\n'


def _mapping(line: bytes) -> Mapping[str, object] | None:
  try:
    value = json.loads(line)
  except (ValueError, RecursionError):  # Not JSON, not UTF-8, or too deep.
    return None
  return value if isinstance(value, dict) else None


def _entry(line: bytes) -> Entry | None:
  values = _mapping(line)
  if values is None or values.keys() != {'round', 'attempt', 'noise_key'}:
    return None
  entry = Entry(**values)
  counted = all(
    type(number) is int and number >= 1
    for number in (entry.round, entry.attempt)
  )
  keyed = isinstance(entry.noise_key, str) and bool(entry.noise_key)
  return entry if counted and keyed else None


def _mend(path: pathlib.Path, *, old: bytes, new: bytes) -> None:
  """Makes a file that holds `old` hold `new`; one begins with the other."""
  with path.open('r+b') as file:
    file.truncate(min(len(old), len(new)))
    file.seek(0, os.SEEK_END)
    file.write(new[len(old) :])
    _sync(file)


def _identity(file: BinaryIO) -> tuple[int, ...]:
  """Returns what changes when a file is replaced or grows."""
  found = os.fstat(file.fileno())
  return found.st_dev, found.st_ino, found.st_size


def _sync(file: BinaryIO) -> None:
  file.flush()
  os.fsync(file.fileno())


def _sync_directory(path: pathlib.Path) -> None:
  directory = os.open(path, os.O_RDONLY)
  try:
    os.fsync(directory)
  finally:
    os.close(directory)
