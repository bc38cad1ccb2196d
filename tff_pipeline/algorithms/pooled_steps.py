"""The contract of optimizer steps on pooled data; see `centralized`."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow_federated as tff

Weights = tff.learning.models.ModelWeights


class State(NamedTuple):
  """What a checkpoint of a centralized run holds.

  Attributes:
    global_model_weights: The model's weights.
    optimizer: The state of the optimizer.
  """

  global_model_weights: Weights
  optimizer: Any


class Steps(Protocol):
  """Takes optimizer steps on batches of examples that are in one place."""

  def initialize(self) -> State:
    """Returns the initial state."""

  def run(
    self,
    state: State,
    batches: Sequence[np.ndarray],
    *,
    key: np.ndarray,
    noise_key: np.ndarray,
    learning_rate: float | None,
  ) -> tuple[State, dict[str, Any]]:
    """Takes a step on each batch.

    Args:
      state: The state before them.
      batches: Row numbers of each batch; int64[n], n may be 0 and may differ.
      key: int64[2]; decides what is random in the model, dropout for example.
      noise_key: int64[2]; decides the noise, if anything does.
      learning_rate: The optimizer's in these steps; unset means its own.

    Returns:
      The state after them, and train metrics.
    """
