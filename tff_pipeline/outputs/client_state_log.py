"""The states of clients on disk: per checkpoint, what has changed.

A checkpoint of round r has a file `client_states_<r>.npz` beside it. It holds
the states that changed since the checkpoint before, and names that checkpoint;
a file that names none holds all states. So the states of round r are those of
a whole file and of all files that build on it, up to r.

Cost: a checkpoint writes the states that changed. Where these files would hold
more than twice the number of states that there are, it writes all of them
instead: on average, at most twice what changed. On disk are then at most about
two files' worth of each state, three while older checkpoints still need the
files before. Restoring reads every file of the chain.

The price of writing so little: checkpoints of one chain share files, so that
damage to an old one can cost all checkpoints after it. A crash cannot damage an
old one; every file is synced before its checkpoint exists, and never changed.

  client_states_<r>.npz (plain zip of .npy, each with its CRC-32):
    previous  int64[1], round that it builds on; -1: none, it is whole
    clients   int64[n]
    leaf_<i>  [n, ...], flat tensor i of their states
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import os
import pathlib
from typing import IO, Any
import zipfile

import numpy as np
import tensorflow as tf

from tff_pipeline.engines import client_store
from tff_pipeline.outputs import disk
from tff_pipeline.outputs import run_directory

_format = np.lib.format

_PREFIX = 'client_states_'
_SUFFIX = '.npz'
_PARTIAL = '.partial'
_WHOLE = -1
_MAX_ROWS_PER_STATE = 2


class ClientStateLog:
  """Saves a store's states by round, and brings them back."""

  def __init__(self, folder: pathlib.Path, store: client_store.Store):
    """Opens the log, and removes what a crash left half-written.

    Args:
      folder: Where the checkpoints are. No other process uses it.
      store: What is saved and restored.
    """
    self._folder = folder
    self._store = store
    self._previous = _WHOLE
    self._rows = 0  # In the file of round `_previous` and those before it.
    self._links: dict[int, int] = {}  # Round -> round that it builds on.
    for partial in folder.glob(f'{_PREFIX}*{_PARTIAL}'):
      partial.unlink()

  def write(self, round_num: int) -> None:
    """Saves the states as they are after a round, durably.

    Raises:
      ValueError: If the store holds the states of another round.
      OSError: If they cannot be written; what was saved before is safe.
    """
    if self._store.version != round_num:
      raise ValueError(
        f'Expected client states of round {round_num}, found those of round '
        f'{self._store.version}.'
      )
    changed = sorted(self._store.changed)
    rows = self._rows + len(changed)
    is_whole = (
      self._previous == _WHOLE
      or len(changed) == self._store.num_participants
      or rows > _MAX_ROWS_PER_STATE * self._store.num_participants
    )
    if is_whole:
      changed = self._store.clients
      self._previous, rows = _WHOLE, len(changed)
    path = self.path(round_num)
    with disk.os_errors(path):
      self._write_file(path, changed)
    self._links[round_num] = self._previous
    self._previous, self._rows = round_num, rows
    self._store.mark_saved()

  def load(self, round_num: int) -> None:
    """Makes the store hold the states after a round.

    Raises:
      Exception: If a file is damaged or missing, of several types. The store
        is empty then.
    """
    self.forget()
    try:
      chain = list(self._chain(round_num))
      rows = [self._read_file(self.path(r)) for r in reversed(chain)]
    except BaseException:
      self.forget()
      raise
    self._store.version = round_num
    self._previous, self._rows = round_num, sum(rows)

  def forget(self) -> None:
    """Makes the store that of a run that has not started."""
    self._store.reset()
    self._previous, self._rows = _WHOLE, 0
    self._links = {}

  def set_aside(self, round_num: int, folder: pathlib.Path) -> None:
    """Moves a round's file into the folder of its damaged checkpoint."""
    path = self.path(round_num)
    if path.exists():
      path.rename(folder / path.name)
    self.forget()

  def prune(self, kept: Iterable[int]) -> None:
    """Removes files that none of these rounds' checkpoints needs."""
    needed = set()
    for round_num in kept:
      # A damaged file is noticed, and reported, by `load`.
      with contextlib.suppress(Exception):
        needed.update(self._chain(round_num))
    for number in self._rounds():
      if number not in needed:
        self.path(number).unlink()

  def path(self, round_num: int) -> pathlib.Path:
    """Returns where the states of a round's checkpoint are."""
    return self._folder / f'{_PREFIX}{round_num}{_SUFFIX}'

  def _rounds(self) -> list[int]:
    names = [p.name for p in self._folder.glob(f'{_PREFIX}*{_SUFFIX}')]
    return [int(n.removeprefix(_PREFIX).removesuffix(_SUFFIX)) for n in names]

  def _chain(self, round_num: int) -> Iterator[int]:
    """Yields the rounds whose files a round needs, newest first."""
    while round_num != _WHOLE:
      yield round_num
      if round_num not in self._links:
        with zipfile.ZipFile(self.path(round_num)) as archive:
          [self._links[round_num]] = _read_numbers(archive, 'previous')
      if not _WHOLE <= self._links[round_num] < round_num:
        raise ValueError(f'{self.path(round_num)} does not name an earlier one')
      round_num = self._links[round_num]

  def _write_file(self, path: pathlib.Path, clients: list[int]) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    with open(partial, 'wb') as file:
      with zipfile.ZipFile(file, 'w') as archive:
        _write_numbers(archive, 'previous', [self._previous])
        _write_numbers(archive, 'clients', clients)
        for index, spec in enumerate(self._store.channel.specs):
          rows = (self._store.leaves(client)[index] for client in clients)
          with archive.open(_leaf(index), 'w', force_zip64=True) as member:
            _format.write_array_header_1_0(member, _header(spec, len(clients)))
            # Row by row: the states need no second place in memory.
            member.writelines(row.tobytes() for row in rows)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
    run_directory.sync(self._folder)

  def _read_file(self, path: pathlib.Path) -> int:
    """Copies a file's states into the store, and returns how many they are."""
    with zipfile.ZipFile(path) as archive:
      clients = _read_numbers(archive, 'clients')
      for index, spec in enumerate(self._store.channel.specs):
        with archive.open(_leaf(index)) as member:
          _check_header(member, _header(spec, len(clients)))
          for client in clients:
            into = self._store.own(client)[index]
            row = np.frombuffer(member.read(into.nbytes), into.dtype)
            into[...] = row.reshape(into.shape)
          if member.read(1):  # Reading to the end checks the CRC, too.
            raise ValueError(f'{path} is longer than it should be')
    return len(clients)


def _leaf(index: int) -> str:
  return f'leaf_{index}.npy'


def _header(spec: tf.TensorSpec, size: int) -> dict[str, Any]:
  """Returns the NumPy header of the stacked states."""
  return {
    'descr': _format.dtype_to_descr(np.dtype(spec.dtype.as_numpy_dtype)),
    'fortran_order': False,
    'shape': (size, *spec.shape),
  }


def _check_header(member: IO[bytes], wanted: Mapping[str, Any]) -> None:
  _format.read_magic(member)
  shape, fortran_order, dtype = _format.read_array_header_1_0(member)
  found = {
    'descr': _format.dtype_to_descr(dtype),
    'fortran_order': fortran_order,
    'shape': shape,
  }
  if found != wanted:
    raise ValueError(f'expected states {wanted}, found {found}')


def _write_numbers(
  archive: zipfile.ZipFile, name: str, numbers: list[int]
) -> None:
  with archive.open(f'{name}.npy', 'w') as member:
    _format.write_array(member, np.array(numbers, np.int64))


def _read_numbers(archive: zipfile.ZipFile, name: str) -> list[int]:
  with archive.open(f'{name}.npy') as member:
    return _format.read_array(member, allow_pickle=False).tolist()
