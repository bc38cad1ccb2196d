"""Server states on disk, through TFF's program state manager.

The states of clients, where there are any, are saved before their server state
(`client_state_log`), which completes the checkpoint: a crash rolls both back
together, and a checkpoint that lacks either is no checkpoint.
"""

import asyncio
from collections.abc import Callable
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.engines import client_store
from tff_pipeline.outputs import client_state_log
from tff_pipeline.outputs import disk
from tff_pipeline.outputs import run_directory

_PREFIX = 'round_'
_KEEP = 3


class Checkpoints:
  """Saves and restores the server state by round.

  TFF's manager writes to a temporary directory and renames it. What it lacks:
  a corrupt checkpoint raises whatever TensorFlow raises, a crash leaves the
  temporary directory behind, and nothing is synced. A checkpoint that cannot be
  read is renamed, never deleted, and the one before it is used.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    warn: Callable[[str], None],
    store: client_store.Store | None = None,
  ):
    """Opens the store, and removes what a crash left half-written.

    Args:
      folder: Where the checkpoints are; created when it is missing. No other
        process uses it.
      warn: Told about every checkpoint that cannot be read.
      store: States of the clients, saved and restored with the server's.
    """
    self._folder = folder
    self._warn = warn
    self._manager = tff.program.FileProgramStateManager(
      os.fspath(folder), prefix=_PREFIX, keep_total=_KEEP, keep_first=False
    )
    for partial in folder.glob(f'{_PREFIX}*_temp*'):
      shutil.rmtree(partial)
    self._client_states = (
      None if store is None else client_state_log.ClientStateLog(folder, store)
    )

  def rounds(self) -> list[int]:
    """Returns the rounds that have a checkpoint, in order."""
    return asyncio.run(self._manager.get_versions()) or []

  def save(self, state: Any, round_num: int) -> None:
    """Saves the state after a round, and forgets all but the last few.

    Raises:
      OSError: If it cannot be written. Earlier checkpoints are safe.
    """
    path = self._folder / f'{_PREFIX}{round_num}'
    if self._client_states is not None:
      self._client_states.write(round_num)
    with disk.os_errors(path):
      asyncio.run(self._manager.save(state, round_num))
    for part in (*path.rglob('*'), path, self._folder):
      run_directory.sync(part)
    if self._client_states is not None:
      self._client_states.prune(self.rounds())

  def restore(self, structure: Any) -> tuple[Any, int]:
    """Returns the newest readable state and its round.

    The store, if there is one, then holds the clients' states of that round.

    Args:
      structure: A state of the same process, such as the initial one.

    Returns:
      (state, round); (`structure`, 0) where there is none.
    """
    found = self.rounds()
    for round_num in reversed(found):
      try:
        state = asyncio.run(self._manager.load(round_num, structure))
        _check_fits(state, structure)
        if self._client_states is not None:
          self._client_states.load(round_num)
      except Exception as e:  # TensorFlow has no one type for a broken file.
        self._set_aside(round_num, e)
      else:
        return state, round_num
    if found:
      self._warn('No checkpoint can be read: starting again from round 1.')
    return structure, 0

  def _set_aside(self, round_num: int, error: Exception) -> None:
    path = self._folder / f'{_PREFIX}{round_num}'
    number = 1
    while (aside := self._folder / f'corrupt_{round_num}_{number}').exists():
      number += 1
    path.rename(aside)
    if self._client_states is not None:
      self._client_states.set_aside(round_num, aside)
    reason = str(error).strip().splitlines() or [type(error).__name__]
    self._warn(
      f'The checkpoint of round {round_num} cannot be read ({reason[0]}). It '
      f'is kept as {aside}; the one before it is used.'
    )


def _check_fits(state: Any, structure: Any) -> None:
  """Raises an error unless both have the same structure, shapes and types."""

  def check(value, example):
    value, example = np.asarray(value), np.asarray(example)
    if (value.shape, value.dtype) != (example.shape, example.dtype):
      raise ValueError(
        f'expected {example.dtype}{example.shape}, found '
        f'{value.dtype}{value.shape}'
      )

  tf.nest.map_structure(check, state, structure)
