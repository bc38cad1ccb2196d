"""Server states on disk, through TFF's program state manager."""

import asyncio
from collections.abc import Callable
import os
import pathlib
from typing import Any

import tensorflow_federated as tff

_PREFIX = 'round_'
_KEEP = 3


class Checkpoints:
  """Saves and restores the server state by round.

  TFF's manager writes to a temporary directory and renames it. What it lacks:
  a corrupt checkpoint raises whatever TensorFlow raises, and a state saved
  again is an error. A checkpoint that cannot be read is renamed, never
  deleted, and the one before it is used.
  """

  def __init__(self, folder: pathlib.Path, *, warn: Callable[[str], None]):
    """Initializes the store.

    Args:
      folder: Where the checkpoints are; created when it is missing.
      warn: Told about every checkpoint that cannot be read.
    """
    self._folder = folder
    self._warn = warn
    self._manager = tff.program.FileProgramStateManager(
      os.fspath(folder), prefix=_PREFIX, keep_total=_KEEP, keep_first=False
    )

  def rounds(self) -> list[int]:
    """Returns the rounds that have a checkpoint, in order."""
    return asyncio.run(self._manager.get_versions()) or []

  def save(self, state: Any, round_num: int) -> None:
    """Saves the state after a round, and forgets all but the last few."""
    asyncio.run(self._manager.save(state, round_num))

  def restore(self, structure: Any) -> tuple[Any, int]:
    """Returns the newest readable state and its round.

    Args:
      structure: A state of the same process, such as the initial one.

    Returns:
      (state, round); (`structure`, 0) where there is none.
    """
    for round_num in reversed(self.rounds()):
      try:
        state = asyncio.run(self._manager.load(round_num, structure))
        return _as(structure, state), round_num
      except Exception as e:  # TensorFlow has no one type for a broken file.
        self._set_aside(round_num, e)
    return structure, 0

  def _set_aside(self, round_num: int, error: Exception) -> None:
    path = self._folder / f'{_PREFIX}{round_num}'
    number = 1
    while (aside := self._folder / f'corrupt_{round_num}_{number}').exists():
      number += 1
    path.rename(aside)
    reason = str(error).strip().splitlines() or [type(error).__name__]
    self._warn(
      f'The checkpoint of round {round_num} cannot be read ({reason[0]}); it '
      f'is kept as {aside.name}, and the one before it is used.'
    )


def _as(structure: Any, state: Any) -> Any:
  """Returns `state`, checked against the shapes and types of `structure`."""
  import tensorflow as tf

  tf.nest.assert_same_structure(structure, state)
  return state
