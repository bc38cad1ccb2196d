"""One process's stretch of a run, from the last checkpoint on."""

from collections.abc import Mapping
import dataclasses
import itertools
import logging
import math
import pathlib
import typing
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline import validate
from tff_pipeline.experiment import building
from tff_pipeline.experiment import limits
from tff_pipeline.experiment import noise
from tff_pipeline.experiment import origin
from tff_pipeline.experiment import stopping
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import noise_key as noise_keys
from tff_pipeline.privacy import statement as statements

if typing.TYPE_CHECKING:
  from tff_pipeline.engines import engine as engines

_log = logging.getLogger(__name__)

SUMMARY = 'summary.json'
_STATEMENT = 'privacy.json'
LEDGER = 'ledger'
_ENCODING = 'encoding.json'
_PERSONALIZATION = 'personalization.csv'
FINISHED = 'finished'
AT_MAX_EPSILON = 'stopped at max_epsilon'
AT_ACCURACY = 'stopped at stop_at_accuracy'
_ACCURACY = 'test_accuracy'


class Session:
  """The rounds that this process runs."""

  def __init__(
    self,
    experiment: config.Experiment,
    parts: building.Parts,
    *,
    key: noise_keys.NoiseKey,
    solution: Mapping[str, Any] | None,
    folder: pathlib.Path,
  ):
    from tff_pipeline import evaluation
    from tff_pipeline.engines import client_store
    from tff_pipeline.outputs import checkpoints

    self._experiment = experiment
    self._parts = parts
    self._solution = solution
    self._folder = folder
    self._delta = experiment.privacy.delta
    # A price that is not this run's own says so wherever it stands.
    self._prefix = 'extrapolated_' if parts.guarantee.extrapolated else ''
    private = noise.is_noised(experiment.privacy)
    self._key = noise_keys.fingerprint(key) if private else ledgers.NO_NOISE
    self._ledger = ledgers.Ledger.open(folder / LEDGER, noise_key=self._key)
    self._store = client_store.for_channel(
      parts.channel, initial=parts.initial_client_state
    )
    self._checkpoints = checkpoints.Checkpoints(
      folder / 'checkpoints', warn=_log.warning, store=self._store
    )
    self._evaluate = evaluation.Evaluator(
      parts.model, test=parts.task.test, attacked=parts.task.attacked_test
    )
    remembered = experiment.algorithm.name in config.REMEMBERED_LAYERS
    self._evaluate_clients = evaluation.ClientEvaluator(
      self._evaluate,
      train=parts.task.train,
      test=parts.task.client_test,
      local_weights=(
        self._store.leaves if remembered and self._store is not None else None
      ),
    )
    self._round_num = 0

  def run(
    self, *, max_epsilon: float | None, stop_at_accuracy: float | None
  ) -> dict[str, Any]:
    """Runs to the end, and returns the summary."""
    from tff_pipeline import rounds
    from tff_pipeline.engines import client_store
    from tff_pipeline.outputs import progress
    from tff_pipeline.outputs import tables

    with (
      self._parts.engine as engine,
      stopping.stop_requests() as stop_requested,
    ):
      state, completed = self._checkpoints.restore(engine.initialize())
      self._check_records(completed)
      last = limits.last_round(
        self._experiment,
        self._parts.guarantee,
        max_epsilon=max_epsilon,
        started=self._ledger.counts_after_resume(completed),
      )
      limit = last
      # What has started may have been released: a run never ends before it.
      started = self._ledger.last_round
      initial = self._evaluate(building.weights(state))
      wanted = limits.wanted_accuracy(stop_at_accuracy, metrics=initial)
      if completed and wanted < math.inf:
        recorded = tables.recorded(self._folder, _ACCURACY)[:completed]
        if any(accuracy >= wanted for accuracy in recorded):
          last = max(completed, started)
      table = tables.Tables(self._folder, completed=completed)
      if completed:
        _log.info('Continuing after round %d.', completed)
      if completed < last:
        self._retract()
      bar = progress.Progress(first=completed + 1, last=last)

      def write_row(round_num: int, row: Mapping[str, float]) -> None:
        table.write(round_num, row)
        bar.update(round_num, row)

      trainer = client_store.keeping(engine, self._store)

      def train(
        state: Any, round_num: int, clients: np.ndarray
      ) -> tuple[Any, dict[str, float]]:
        self._round_num = round_num
        if round_num < last:
          # Data that is not in memory is read while this round trains.
          self._parts.task.train.prefetch(self._parts.sampler(round_num + 1))
        state, measured = _train(trainer, state, round_num, clients)
        return state, measured | self._traffic()

      steps = rounds.Steps(
        sample=self._parts.sampler,
        record_attempt=self._ledger.append,
        train=train,
        price=self._price,
        evaluate=lambda s: (
          _prefixed('test_', self._evaluate(building.weights(s)))
          | self._measure_clients(building.weights(s), last=last)
        ),
        write_row=write_row,
        save=self._checkpoints.save,
        reached=lambda row: (
          self._round_num >= started and row.get(_ACCURACY, math.nan) >= wanted
        ),
        stop_requested=stop_requested,
      )
      try:
        state, last = rounds.run(
          state,
          first=completed + 1,
          last=last,
          evaluate_every=self._experiment.evaluate_every,
          checkpoint_every=self._experiment.checkpoint_every,
          evaluation_columns=(
            *_prefixed('test_', initial),
            *self._measure_clients(None, last=last),
          ),
          steps=steps,
        )
      except rounds.Interrupted as e:
        raise stopping.Interrupted(
          f'stopped after round {e.round_num} of {last}; everything is saved. '
          'Run the same command again to continue.'
        ) from None
      finally:
        bar.close()
      status = AT_MAX_EPSILON if last == limit else AT_ACCURACY
      if last == self._experiment.rounds:
        status = FINISHED
      return self._finish(state, last, status=status)

  def _measure_clients(self, weights: Any, *, last: int) -> dict[str, float]:
    """Returns the columns of clients, if there are any; NaN if not due."""
    every = self._experiment.evaluate_clients_every
    if every is None:
      return {}
    if self._round_num and self._round_num in (
      last,
      *range(every, last, every),
    ):
      return self._evaluate_clients(weights)
    return dict.fromkeys(self._evaluate_clients.columns, math.nan)

  def _traffic(self) -> dict[str, float]:
    traffic = self._parts.traffic
    return {} if traffic is None else dataclasses.asdict(traffic)

  def _check_records(self, completed: int) -> None:
    """Refuses a ledger, table or noise key that the checkpoint belies."""
    from tff_pipeline.outputs import tables

    started = self._ledger.last_round
    rows = tables.recorded_rounds(self._folder)
    if started < max(completed, rows):
      raise validate.error(
        'output_dir',
        expected=f'a ledger of the {max(completed, rows)} rounds that have run',
        found=f'{started} rounds in it',
        remedy='Restore the ledger, or start a new run elsewhere: epsilon '
        'would be under-stated',
      )
    if rows < completed:
      raise validate.error(
        'output_dir',
        expected=f'{tables.NAME} with the {completed} rounds of the checkpoint',
        found=f'{rows} rounds in it',
        remedy='Restore the file, or start a new run elsewhere',
      )
    self._check_prices(completed)
    if (
      completed
      and noise_keys.is_keyed(self._experiment.algorithm.batches)
      and self._ledger.entries[-1].noise_key != self._key
    ):
      raise validate.error(
        'output_dir',
        expected='the noise key that the checkpoint was made with',
        found=f'another one in {self._folder / noise.NAME}',
        remedy='Restore the file, or start a new run elsewhere',
      )

  def _check_prices(self, completed: int) -> None:
    """Refuses rows whose epsilon was lowered; the statement needs none."""
    from tff_pipeline.outputs import tables

    if not completed:
      return
    name = self._prefix + 'epsilon_rdp'
    recorded = tables.recorded(self._folder, name)[:completed]
    derived = self._price(completed, False)[name]
    falls = any(
      later < earlier * (1 - 1e-9)
      for earlier, later in itertools.pairwise(recorded)
    )
    if falls or not np.isclose(recorded[-1], derived, rtol=1e-9, atol=0.0):
      raise validate.error(
        'output_dir',
        expected=f'{name} in {tables.NAME} to grow to {derived}, as config and '
        f'ledger give it for round {completed}',
        found=recorded[-1] if not falls else 'a row where it falls',
        remedy='Restore the file, or start a new run elsewhere',
      )

  def _retract(self) -> None:
    """Removes the results of an earlier end: more is going to be released."""
    from tff_pipeline.report import writing

    for name in (SUMMARY, _STATEMENT, _PERSONALIZATION, writing.PAGE):
      (self._folder / name).unlink(missing_ok=True)
    run_directory.sync(self._folder)

  def _price(self, round_num: int, evaluated: bool) -> dict[str, float]:
    released = self._ledger.release_counts(round_num)
    guarantee = self._parts.guarantee
    columns = {
      'epsilon': accounting.headline(
        guarantee, released, delta=self._delta
      ).epsilon
      if evaluated
      else math.nan,
      'epsilon_rdp': accounting.epsilon(
        guarantee, released, delta=self._delta, accountant='rdp'
      ),
    }
    return _prefixed(self._prefix, columns)

  def _finish(self, state: Any, last: int, *, status: str) -> dict[str, Any]:
    from tff_pipeline.models import split as splits
    from tff_pipeline.outputs import hyperparameters
    from tff_pipeline.outputs import saved_model

    weights = building.weights(state)
    saved_model.write(
      self._folder / 'model',
      self._parts.task.model_factory,
      splits.whole_weights(self._parts.model, weights),
    )
    statement = self._statement(last)
    run_directory.write_json(self._folder / _STATEMENT, statement)
    if self._parts.task.encoding:
      run_directory.write_json(
        self._folder / _ENCODING, dict(self._parts.task.encoding)
      )
    summary = {
      'status': status,
      'rounds': last,
      'data': self._parts.task.label or 'real',
      'test': self._evaluate(weights),
      'privacy': statement,
      'versions': origin.versions(),
    }
    hyperparameters.write(
      self._folder / 'tensorboard',
      run_directory.flat(config.to_dict(self._experiment)),
      metrics=(
        self._prefix + 'epsilon',
        *_prefixed('test_', summary['test']),
      ),
    )
    if self._parts.traffic is not None:
      summary['communication'] = self._communication(last, summary['test'])
    if self._experiment.evaluate_clients_every is not None:
      summary['clients'] = self._evaluate_clients(weights)
    if self._parts.held_out:
      summary['personalization'] = self._personalize(weights)
    run_directory.write_json(self._folder / SUMMARY, summary)
    _write_report(self._folder)
    return run_directory.read_json(self._folder / SUMMARY)

  def _personalize(self, weights: Any) -> dict[str, Any]:
    """Writes what each held-out client got; returns the summary of it."""
    from tff_pipeline import personalization

    outcome = personalization.measure(
      self._parts.model,
      weights,
      self._parts.held_out,
      leaves=self._experiment.personalization,
      batch_size=self._experiment.client.batch_size,
      seed=self._experiment.seed,
      evaluator=self._evaluate,
    )
    run_directory.write_text(self._folder / _PERSONALIZATION, outcome.table())
    return outcome.summary()

  def _communication(
    self, last: int, test: Mapping[str, float]
  ) -> dict[str, float]:
    """Returns what was sent, by the expected cohort, which is public."""
    traffic = self._parts.traffic
    cohort = sampling.expected_size(
      self._experiment.cohort, population=self._parts.task.train.num_clients
    )
    sent = (traffic.bytes_up + traffic.bytes_down) * cohort * last
    found = self._traffic() | {'expected_megabytes': sent / 1e6}
    if 'accuracy' in test:
      found['accuracy_per_megabyte'] = test['accuracy'] / sent * 1e6
    return found

  def _statement(self, last: int) -> dict[str, Any]:
    return statements.build(
      config.terms(self._experiment),
      released=self._ledger.release_counts(last),
      replays=self._ledger.replays(),
      solved=self._solution,
      uncovered=self._parts.task.uncovered,
    )


def _write_report(folder: pathlib.Path) -> None:
  """Writes the run's page. What is wrong with a page is not with the run."""
  try:
    from tff_pipeline.report import writing

    writing.write_run(folder)
  except Exception as e:  # Drawing libraries raise anything.
    _log.warning(
      'No report was written (%r); the run is complete without it: python -m '
      'experiments.report %s',
      e,
      folder,
    )


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
  return {prefix + name: value for name, value in values.items()}


def _train(
  engine: 'engines.Engine', state: Any, round_num: int, clients: np.ndarray
) -> tuple[Any, dict[str, float]]:
  from tff_pipeline.engines import measurements

  done = engine.round(state, round_num=round_num, clients=clients)
  for weight in building.weights(done.state).trainable:
    if not np.all(np.isfinite(weight)):
      raise stopping.Failed(
        f'the weights are not finite after round {round_num}: training '
        'diverged. Rounds that were saved are safe, and the ledger has this '
        'one; in a new directory, lower the learning rates or the noise.'
      )
  return done.state, measurements.columns(done.metrics)
