"""What clients keep between rounds: the one place where it is, in memory.

Only clients that took part have an entry, so memory is participants x size of a
state, whatever the population. All others have the initial state, which exists
once.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tff_pipeline.engines import engine as engines
from tff_pipeline.engines import state_channel


class Store:
  """The states of all clients after some round.

  Attributes:
    channel: What a state is.
    version: The round after which these are the states; 0 is the start.
    changed: Clients whose state changed since `mark_saved`.
  """

  def __init__(
    self, channel: state_channel.Channel, *, initial: Any | None = None
  ):
    """Initializes the store without any participant.

    Args:
      channel: What a state is.
      initial: State of a client that never took part, in the structure that the
        process has it in; unset means zeros.

    Raises:
      ValueError: If it does not have the type of a state.
    """
    self.channel = channel
    self.version = 0
    self.changed: set[int] = set()
    self._states: dict[int, state_channel.Leaves] = {}
    self._initial = tuple(leaf[0] for leaf in channel.zeros(1))
    if initial is not None:
      self._initial = channel.flat(initial)

  @property
  def num_participants(self) -> int:
    """How many clients have taken part."""
    return len(self._states)

  @property
  def clients(self) -> list[int]:
    """Who has taken part, in order of number."""
    return sorted(self._states)

  def leaves(self, client: int) -> state_channel.Leaves:
    """Returns the flat tensors of a client's state; not to be changed."""
    return self._states.get(client, self._initial)

  def state(self, client: int) -> Any:
    """Returns a client's state as the process names it."""
    return self.channel.packed(self.leaves(client))

  def rows(self, clients: np.ndarray) -> state_channel.Leaves:
    """Returns the states of clients, stacked in their order."""
    rows = self.channel.empty(len(clients))
    for number, client in enumerate(np.asarray(clients).tolist()):
      for into, leaf in zip(rows, self.leaves(client), strict=True):
        into[number] = leaf
    return rows

  def update(
    self,
    rows: state_channel.Rows,
    round_num: int,
    *,
    cohort: Iterable[int] | None = None,
  ) -> None:
    """Takes the states that a round gave back.

    Args:
      rows: New states; clients that are not among them keep theirs.
      round_num: The round; the one after `version`.
      cohort: Who took part; unset means whoever comes back.

    Raises:
      ValueError: If this is another round's turn, or if a client comes back
        twice or did not take part. Nothing is changed then.
    """
    if round_num != self.version + 1:
      raise ValueError(
        f'Expected client states of round {self.version + 1}, found those of '
        f'round {round_num}.'
      )
    clients = rows.clients.tolist()
    strangers = set(clients) - set(clients if cohort is None else cohort)
    if strangers or len(set(clients)) < len(clients):
      raise ValueError(
        'Expected a state of each client of the cohort at most once, found '
        f'clients {sorted(clients)} in round {round_num}.'
      )
    for number, client in enumerate(clients):
      # Copies: a row of the stack would keep all of the stack alive.
      for into, leaf in zip(self.own(client), rows.leaves, strict=True):
        into[...] = leaf[number]
    self.version = round_num
    self.changed.update(clients)

  def own(self, client: int) -> state_channel.Leaves:
    """Returns the arrays that a client's state is in, to be written to.

    Those of a client without an entry are new and hold anything.
    """
    if client not in self._states:
      self._states[client] = tuple(
        np.empty(spec.shape, spec.dtype.as_numpy_dtype)
        for spec in self.channel.specs
      )
    return self._states[client]

  def mark_saved(self) -> None:
    """Forgets what has changed: all of it is on disk."""
    self.changed.clear()

  def reset(self) -> None:
    """Returns to the start: nobody has taken part."""
    self._states.clear()
    self.changed.clear()
    self.version = 0


def for_channel(
  channel: state_channel.Channel | None, *, initial: Any | None = None
) -> Store | None:
  """Returns an empty store; `None` if there is no channel, and no states."""
  return None if channel is None else Store(channel, initial=initial)


def keeping(
  engine: engines.Engine, store: Store | None
) -> 'engines.Engine | Keeping':
  """Returns what runs rounds on an engine and keeps their clients' states."""
  return engine if store is None else Keeping(engine, store)


class Keeping:
  """An engine whose clients remember."""

  def __init__(self, engine: engines.Engine, store: Store):
    self._engine = engine
    self._store = store

  def round(
    self, state: Any, *, round_num: int, clients: np.ndarray
  ) -> engines.Round:
    """Runs a round; the store then holds the states after it.

    Raises:
      ValueError: If the store is not that of the round before.
    """
    done = self._engine.round(
      state,
      round_num=round_num,
      clients=clients,
      states=self._store.rows(clients),
    )
    self._store.update(done.client_states, round_num, cohort=clients.tolist())
    return done
