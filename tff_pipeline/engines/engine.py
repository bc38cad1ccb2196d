"""The contract of an engine, and the choice of one."""

import dataclasses
from typing import Any, Protocol

import numpy as np
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.engines import feeds
from tff_pipeline.privacy import noise_key as noise_keys


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Round:
  """What one round gives back.

  Attributes:
    state: The server's next state.
    metrics: The process's metrics: nested mappings of scalars.
  """

  state: Any
  metrics: Any


class EngineError(RuntimeError):
  """What executes the rounds is broken or gone; the process is not to blame."""


class Engine(Protocol):
  """Executes a learning process; a context manager that frees its resources."""

  def __enter__(self) -> 'Engine':
    """Acquires what the engine needs."""

  def __exit__(self, *exception: Any) -> None:
    """Frees it, whatever happened."""

  def initialize(self) -> Any:
    """Returns the initial server state."""

  def round(self, state: Any, *, round_num: int, clients: np.ndarray) -> Round:
    """Runs one round over a cohort, which may be empty.

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
