"""The contract of an engine, and the choice of one."""

import dataclasses
from typing import Any, Protocol

import numpy as np
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.engines import feeds
from tff_pipeline.engines import state_channel
from tff_pipeline.privacy import noise_key as noise_keys


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Round:
  """What one round gives back.

  Attributes:
    state: The server's next state.
    metrics: The process's metrics: nested mappings of scalars.
    client_states: New states of the clients that took part, in any order;
      `None` if the process is stateless.
  """

  state: Any
  metrics: Any
  client_states: state_channel.Rows | None = None


class EngineError(RuntimeError):
  """What executes the rounds is broken or gone; the process is not to blame."""


class Engine(Protocol):
  """Executes a learning process; a context manager that frees its resources.

  Attributes:
    channel: The process's client states; `None` if it is stateless. The type of
      a client's data and the metrics decide, see `state_channel`.
  """

  channel: state_channel.Channel | None

  def __enter__(self) -> 'Engine':
    """Acquires what the engine needs."""

  def __exit__(self, *exception: Any) -> None:
    """Frees it, whatever happened."""

  def initialize(self) -> Any:
    """Returns the initial server state."""

  def round(
    self,
    state: Any,
    *,
    round_num: int,
    clients: np.ndarray,
    states: state_channel.Leaves | None = None,
  ) -> Round:
    """Runs one round over a cohort, which may be empty.

    Args:
      state: The server's state.
      round_num: 1-based; with the seed, it decides the clients' keys.
      clients: int64[m].
      states: What these clients kept, in the same order: stacked rows
        [m, ...] for each flat tensor of a state. Unset means zeros, as if
        nobody had taken part before. The engine remembers nothing itself.

    Raises:
      EngineError: If the engine is broken or gone.
    """


def build(
  name: config.EngineName,
  process: tff.learning.templates.LearningProcess,
  *,
  data: client_data.Clients,
  schedule: training_loop.Schedule,
  seed: int,
  noise_key: noise_keys.NoiseKey,
) -> Engine:
  """Returns the engine of this name for a process; see `feeds.Feed`."""
  from tff_pipeline.engines import in_process
  from tff_pipeline.engines import tff_runtime

  feed = feeds.for_process(
    process, data, schedule=schedule, seed=seed, noise_key=noise_key
  )
  builders = {
    config.EngineName.IN_PROCESS: in_process.InProcess,
    config.EngineName.TFF_RUNTIME: tff_runtime.TffRuntime,
  }
  return builders[name](process, feed)
