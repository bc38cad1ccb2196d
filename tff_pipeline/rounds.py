"""The only round loop. It knows no task, flag or file format."""

from collections.abc import Callable, Mapping
import dataclasses
import math
import time
from typing import Any

import numpy as np
import psutil


class Interrupted(Exception):
  """Somebody asked to stop; the round in `round_num` is complete and saved."""

  def __init__(self, round_num: int):
    super().__init__(f'Stopped after round {round_num}.')
    self.round_num = round_num


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
  """What the loop calls, in this order, in each round.

  Attributes:
    sample: Round -> client ids, int64[m]; m may be 0.
    record_attempt: Round -> None; durable before it returns.
    train: State, round, client ids -> next state and measurements by name.
    price: Round, whether it is evaluated -> privacy columns by name.
    evaluate: State -> metrics by name; called in rounds that are evaluated.
    write_row: A finished row.
    save: State, round; durable before it returns.
    reached: Row -> whether the run has got where it was to go, and ends.
    stop_requested: Whether to pause after this round.
  """

  sample: Callable[[int], np.ndarray]
  record_attempt: Callable[[int], None]
  train: Callable[[Any, int, np.ndarray], tuple[Any, Mapping[str, float]]]
  price: Callable[[int, bool], Mapping[str, float]]
  evaluate: Callable[[Any], Mapping[str, float]]
  write_row: Callable[[int, Mapping[str, float]], None]
  save: Callable[[Any, int], None]
  reached: Callable[[Mapping[str, float]], bool]
  stop_requested: Callable[[], bool]


def run(
  state: Any,
  *,
  first: int,
  last: int,
  evaluate_every: int,
  checkpoint_every: int,
  evaluation_columns: tuple[str, ...],
  steps: Steps,
) -> tuple[Any, int]:
  """Runs rounds `first` to `last`, both included, or until one has `reached`.

  The attempt is on disk before a round runs, and its row before its
  checkpoint: whatever is interrupted, the ledger knows of every round that may
  have released something, and no checkpoint lacks its rows.

  Args:
    state: Server state before round `first`.
    first: First round, 1-based.
    last: Last round. The one that ends a run is always evaluated and saved.
    evaluate_every: Rounds between evaluations.
    checkpoint_every: Rounds between checkpoints.
    evaluation_columns: Names that `evaluate` gives; NaN in other rounds.
    steps: What to call.

  Returns:
    The server state at the end, and the last round that ran; `first` - 1 if
    none did.

  Raises:
    Interrupted: If a stop was requested before the end; it is saved.
  """
  process = psutil.Process()
  row_written = time.perf_counter()
  for round_num in range(first, last + 1):
    evaluated = round_num == last or round_num % evaluate_every == 0
    clients = steps.sample(round_num)
    steps.record_attempt(round_num)
    started = time.perf_counter()
    state, measured = steps.train(state, round_num, clients)
    seconds = time.perf_counter() - started
    trained = time.perf_counter()
    found = (
      steps.evaluate(state)
      if evaluated
      else dict.fromkeys(evaluation_columns, math.nan)
    )
    evaluated_at = time.perf_counter()
    prices = steps.price(round_num, evaluated)
    priced_at = time.perf_counter()
    row = {
      'unnoised_cohort_size': len(clients),
      **prices,
      **measured,
      **found,
      'round_seconds': seconds,
      'evaluate_seconds': evaluated_at - trained,
      'price_seconds': priced_at - evaluated_at,
      'whole_seconds': priced_at - row_written,
      'clients_per_second': len(clients) / seconds,
      'rss_mb': process.memory_info().rss / 2**20,
    }
    row_written = priced_at
    steps.write_row(round_num, row)
    ending = round_num == last or steps.reached(row)
    stopping = steps.stop_requested() and not ending
    if stopping or ending or round_num % checkpoint_every == 0:
      steps.save(state, round_num)
    if stopping:
      raise Interrupted(round_num)
    if ending:
      return state, round_num
  return state, first - 1
