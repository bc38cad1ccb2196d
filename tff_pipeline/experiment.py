"""run(config, output_dir): the only place where everything meets.

Everything that can be refused is refused before TensorFlow is imported, and
before anything is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import datetime
import importlib.metadata
import logging
import math
import os
import pathlib
import platform
import signal
import subprocess
import threading
import types
import typing
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import calibration
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import noise_key as noise_keys
from tff_pipeline.privacy import statement as statements

if typing.TYPE_CHECKING:
  import tensorflow_federated as tff

  from tff_pipeline.engines import engine as engines
  from tff_pipeline.privacy import mechanisms

_log = logging.getLogger(__name__)

_SUMMARY = 'summary.json'
_STATEMENT = 'privacy.json'
_NOISE_KEY = 'noise_key'
_LEDGER = 'ledger'
_ENCODING = 'encoding.json'
_PACKAGES = (
  'tensorflow',
  'tensorflow-federated',
  'tensorflow-privacy',
  'dp-accounting',
  'keras',
  'numpy',
)
FINISHED = 'finished'
AT_MAX_EPSILON = 'stopped at max_epsilon'
_NOTHING = ledgers.Releases(0)


class Interrupted(Exception):
  """The run was asked to stop, and can be resumed; the message says how."""


class Failed(Exception):
  """The machine failed the run, not the program; the message says what to do.

  A full disk, for example, or a worker that was killed.
  """


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
  """What a config builds: everything that a round needs.

  Attributes:
    task: Data, model factory, loss and metrics.
    model: The functional model with the initial weights.
    mechanism: Aggregator, sampler and guarantee.
    process: The learning process.
    engine: Not entered yet.
  """

  task: tasks.Task
  model: 'tff.learning.models.FunctionalModel'
  mechanism: 'mechanisms.Mechanism'
  process: 'tff.learning.templates.LearningProcess'
  engine: 'engines.Engine'


def run(
  experiment: config.Experiment,
  output_dir: str | os.PathLike[str],
  *,
  data_dir: str | os.PathLike[str] | None = None,
  max_epsilon: float | None = None,
  argv: Sequence[str] = (),
) -> dict[str, Any]:
  """Runs an experiment, or continues it, to its end.

  Args:
    experiment: The config. The one that a directory was started with, or the
      run is refused.
    output_dir: The run directory.
    data_dir: Folder of the data sets' files; see `data.locations`.
    max_epsilon: Stop before the round whose release would exceed it.
    argv: The command line, for the record.

  Returns:
    The content of `summary.json`.

  Raises:
    UsageError: If something that the user can mend is wrong; nothing was
      written.
    Interrupted: If a signal asked to stop; all that was computed is saved.
    Failed: If a file cannot be written or the engine broke down; what was saved
      until then is safe.
  """
  tasks.check(experiment.task)
  if experiment.algorithm.name is config.AlgorithmName.CENTRALIZED:
    raise validate.error(
      'algorithm.name',
      expected=f'{config.AlgorithmName.FED_AVG}: centralized training can be '
      'priced, but is a library part only so far (algorithms/centralized.py)',
      found=experiment.algorithm.name,
    )
  if max_epsilon is not None:
    validate.check_number('max_epsilon', max_epsilon, above=0.0)
  with run_directory.RunDirectory(output_dir) as directory:
    directory.check_same(config.to_dict(experiment))
    finished = _finished_summary(directory)
    if finished is not None:
      _log.info('%s is finished already; nothing was changed.', output_dir)
      return finished
    solved, solution = _solve(experiment, directory.record)
    guaranteed = guarantees.build(config.terms(solved))
    if directory.record is None:
      _last_round(solved, guaranteed, max_epsilon=max_epsilon)
    key = _planned_noise_key(solved.privacy, directory.path)
    tasks.prepare(solved.task, data_dir=data_dir)
    parts = build(solved, noise_key=key, data_dir=data_dir)
    with _failures(directory.path):
      directory.claim(_record(experiment, solution, argv))
      _keep_noise_key(solved.privacy, key, directory.path)
      session = _Session(
        solved, parts, key=key, solution=solution, folder=directory.path
      )
      return session.run(max_epsilon)


def describe(
  summary: Mapping[str, Any], output_dir: str | os.PathLike[str]
) -> str:
  """Returns the summary for people."""
  privacy = summary['privacy']
  test = ', '.join(f'{k} {v:.4f}' for k, v in summary['test'].items())
  lines = {
    'held-out data': test,
    **({} if summary['data'] == 'real' else {'data': summary['data']}),
    'epsilon': f'{statements.shown(float(privacy["epsilon"]))} at delta '
    f'{privacy["delta"]} ({privacy["headline"]["accountant"].upper()}; by '
    f'RDP {statements.shown(float(privacy["epsilon_rdp"]))})',
    'protects': f'one {privacy["unit"]}: {privacy["neighbours"]}',
    'cohorts': privacy['sampler'],
    'rounds': f'{summary["rounds"]} ({summary["status"]})',
    'versions': ', '.join(f'{k} {v}' for k, v in summary['versions'].items()),
    'files': os.fspath(output_dir),
  }
  if privacy['unit'] is None:
    lines['epsilon'] = 'infinite'
    lines['protects'] = 'nobody'
  if privacy['extrapolated']:
    lines['epsilon'] += ', extrapolated to larger cohorts'
  also = [part['sentence'] for part in statements.nested(privacy).values()]
  width = max(map(len, lines)) + 2
  table = [f'{name + ":":<{width}}{text}' for name, text in lines.items()]
  return '\n'.join(['', *table, '', privacy['sentence'], *also])


def smoke_round() -> None:
  """Runs one private round over two clients; raises if anything is broken."""
  tiny = config.Experiment(
    task=config.Task(name='digits', partition='iid', clients=300),
    cohort=config.fixed_size(2),
    client=config.Client(batch_size=10, learning_rate=0.1),
    server=config.Server(learning_rate=1.0),
    privacy=config.gaussian(
      noise_multiplier=1.0, clip_norm=1.0, delta=1e-3, population=300
    ),
    rounds=1,
  )
  parts = build(tiny, noise_key=noise_keys.draw())
  with parts.engine as engine:
    done = engine.round(
      engine.initialize(), round_num=1, clients=parts.mechanism.sampler(1)
    )
  if not all(np.all(np.isfinite(w)) for w in _weights(done.state).trainable):
    raise RuntimeError('the round gave weights that are not finite')


def build(
  experiment: config.Experiment,
  *,
  noise_key: noise_keys.NoiseKey,
  data_dir: str | os.PathLike[str] | None = None,
) -> Parts:
  """Builds all parts of a config in which nothing is left to solve.

  Args:
    experiment: The config.
    noise_key: Decides the DP noise.
    data_dir: Folder of the data sets' files; see `data.locations`.

  Raises:
    UsageError: If the config does not fit the data.
  """
  from tff_pipeline import optimizers
  from tff_pipeline.algorithms import fed_avg
  from tff_pipeline.client_work import training_loop
  from tff_pipeline.engines import engine as engines
  from tff_pipeline.models import functional
  from tff_pipeline.privacy import mechanisms

  task = tasks.build(experiment.task, seed=experiment.seed, data_dir=data_dir)
  _check_data(experiment.privacy, task.train.client_sizes)
  model = functional.build(
    functional.keras_model(task.model_factory, seed=experiment.seed),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )
  mechanism = mechanisms.build(
    config.terms(experiment),
    population=task.train.num_clients,
    noise_key=noise_key,
  )
  client = experiment.client
  schedule = training_loop.Schedule(
    epochs=client.epochs,
    batch_size=client.batch_size,
    shuffle=client.shuffle,
  )
  process = fed_avg.build(
    model,
    client_optimizer=optimizers.build(client),
    server_optimizer=optimizers.build(experiment.server),
    schedule=schedule,
    protection=mechanism.protection,
    aggregator=mechanism.aggregator,
    weighting=experiment.algorithm.weighting,
  )
  engine = engines.build(
    experiment.engine,
    process,
    data=task.train,
    schedule=schedule,
    seed=experiment.seed,
    noise_key=noise_key,
  )
  return Parts(
    task=task,
    model=model,
    mechanism=mechanism,
    process=process,
    engine=engine,
  )


def _check_data(privacy: config.Privacy, client_sizes: np.ndarray) -> None:
  """Refuses data that the guarantee does not fit."""
  clients = len(client_sizes)
  extrapolated = privacy.noise_cohort_size is not None
  if not extrapolated and privacy.population not in (None, clients):
    raise validate.error(
      'privacy.population',
      expected=f'{clients}, the number of clients in the data',
      found=privacy.population,
      remedy='Epsilon depends on the real population',
    )
  if (
    privacy.mechanism is config.Mechanism.DP_SGD
    or privacy.example_noise_multiplier is not None
  ):
    guarantees.check_example_delta(privacy.delta, client_sizes)


def _finished_summary(
  directory: run_directory.RunDirectory,
) -> dict[str, Any] | None:
  path = directory.path / _SUMMARY
  if directory.record is None or not path.exists():
    return None
  summary = run_directory.read_json(path)
  return summary if summary['status'] == FINISHED else None


def _solve(
  experiment: config.Experiment, record: Mapping[str, Any] | None
) -> tuple[config.Experiment, dict[str, Any] | None]:
  """Returns the config with its target epsilon solved, and the solution."""
  if experiment.privacy.target_epsilon is None:
    return experiment, None
  if record is not None:
    solution = record['solved']
  else:
    _log.info('Solving for epsilon %s ...', experiment.privacy.target_epsilon)
    found = calibration.solve(
      config.terms(experiment), rounds=experiment.rounds
    )
    solution = {
      'leaf': found.leaf,
      'value': found.value,
      'target_epsilon': found.target_epsilon,
    }
  solved = config.with_solution(experiment, solution['leaf'], solution['value'])
  return solved, solution


def _last_round(
  experiment: config.Experiment,
  guaranteed: accounting.Guarantee,
  *,
  max_epsilon: float | None,
  started: ledgers.Releases = _NOTHING,
) -> int:
  """Returns the last round that a run may have.

  Args:
    experiment: The config with nothing left to solve.
    guaranteed: Its guarantee.
    max_epsilon: Largest epsilon, if there is a limit.
    started: What the rounds that have started will have released.

  Raises:
    UsageError: If these rounds, or the first one, already exceed the limit.
  """
  if max_epsilon is None:
    return experiment.rounds
  last = calibration.max_rounds(
    guaranteed,
    delta=experiment.privacy.delta,
    epsilon=max_epsilon,
    limit=experiment.rounds,
    recorded=started,
  )
  least = max(1, started.rounds)
  if last < least:
    raise validate.error(
      'max_epsilon',
      expected=f'at least the epsilon of round {least}'
      + (', which has started before' if started.rounds else ''),
      found=max_epsilon,
      remedy='Raise it',
    )
  return last


def _planned_noise_key(
  privacy: config.Privacy, folder: pathlib.Path
) -> noise_keys.NoiseKey:
  """Returns the key of this run: kept, fixed by the config, or drawn now.

  Raises:
    UsageError: If the key of a run with checkpoints is gone: they hold the
      old one, so a new one would not be used where it is recorded.
  """
  if privacy.noise_seed is not None:
    return noise_keys.from_seed(privacy.noise_seed)
  path = folder / _NOISE_KEY
  try:
    return noise_keys.from_text(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    if _is_noised(privacy) and any((folder / 'checkpoints').glob('*')):
      raise validate.error(
        'output_dir',
        expected=f'the noise key that {folder} was started with',
        found=f'no {path}',
        remedy='Restore the file, or start a new run elsewhere',
      ) from None
    return noise_keys.draw()
  except ValueError as e:
    raise validate.error(
      'output_dir', expected=f'a noise key in {path}', found=str(e)
    ) from e


def _keep_noise_key(
  privacy: config.Privacy, key: noise_keys.NoiseKey, folder: pathlib.Path
) -> None:
  if _is_noised(privacy) and privacy.noise_seed is None:
    path = folder / _NOISE_KEY
    if not path.exists():
      run_directory.write_text(path, noise_keys.to_text(key), mode=0o600)


def _is_noised(privacy: config.Privacy) -> bool:
  """Returns whether anything in a run follows its noise key."""
  return bool(privacy.noise_multiplier or privacy.example_noise_multiplier)


def _record(
  experiment: config.Experiment,
  solution: Mapping[str, Any] | None,
  argv: Sequence[str],
) -> dict[str, Any]:
  return {
    'config': config.to_dict(experiment),
    **({'solved': solution} if solution else {}),
    'versions': versions(),
    'git_revision': _git_revision(),
    'argv': list(argv),
    'started': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
  }


def versions() -> dict[str, str]:
  """Returns the versions that a result depends on."""
  found = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {'python': platform.python_version(), **found}


def _git_revision() -> str | None:
  """Returns the checkout's commit, marked if it was changed since."""
  folder = pathlib.Path(__file__).parent
  try:
    return subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


@contextlib.contextmanager
def _failures(folder: pathlib.Path) -> Iterator[None]:
  """Says what a failure of the machine means for the run in `folder`."""
  from tff_pipeline.engines import engine as engines

  try:
    yield
  except (OSError, engines.EngineError) as e:
    raise Failed(
      f'{e}. What was saved in {folder} is safe: mend this, and run the same '
      'command again to continue.'
    ) from e


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
  """Turns the first SIGINT or SIGTERM into a request; a second one kills."""
  requested = threading.Event()

  def request(number: int, frame: types.FrameType | None) -> None:
    del frame
    requested.set()
    for name, handler in before.items():
      signal.signal(name, handler)
    _log.info(
      '%s: finishing this round; once more to stop at once.',
      signal.Signals(number).name,
    )

  before = {}
  if threading.current_thread() is threading.main_thread():
    for name in (signal.SIGINT, signal.SIGTERM):
      before[name] = signal.signal(name, request)
  try:
    yield requested.is_set
  finally:
    for name, handler in before.items():
      signal.signal(name, handler)


class _Session:
  """One process's stretch of a run, from the last checkpoint on."""

  def __init__(
    self,
    experiment: config.Experiment,
    parts: Parts,
    *,
    key: noise_keys.NoiseKey,
    solution: Mapping[str, Any] | None,
    folder: pathlib.Path,
  ):
    from tff_pipeline import evaluation
    from tff_pipeline.outputs import checkpoints

    self._experiment = experiment
    self._parts = parts
    self._solution = solution
    self._folder = folder
    self._delta = experiment.privacy.delta
    private = _is_noised(experiment.privacy)
    self._key = noise_keys.fingerprint(key) if private else ledgers.NO_NOISE
    self._ledger = ledgers.Ledger.open(folder / _LEDGER, noise_key=self._key)
    self._checkpoints = checkpoints.Checkpoints(
      folder / 'checkpoints', warn=_log.warning
    )
    self._evaluate = evaluation.Evaluator(parts.model, test=parts.task.test)

  def run(self, max_epsilon: float | None) -> dict[str, Any]:
    """Runs to the end, and returns the summary."""
    from tff_pipeline import rounds
    from tff_pipeline.outputs import progress
    from tff_pipeline.outputs import tables

    with self._parts.engine as engine, _stop_requests() as stop_requested:
      state, completed = self._checkpoints.restore(engine.initialize())
      self._check_records(completed)
      last = _last_round(
        self._experiment,
        self._parts.mechanism.guarantee,
        max_epsilon=max_epsilon,
        started=self._ledger.counts_after_resume(completed),
      )
      table = tables.Tables(self._folder, completed=completed)
      if completed:
        _log.info('Continuing after round %d.', completed)
      bar = progress.Progress(first=completed + 1, last=last)
      initial = self._evaluate(_weights(state))

      def write_row(round_num: int, row: Mapping[str, float]) -> None:
        table.write(round_num, row)
        bar.update(round_num, row)

      steps = rounds.Steps(
        sample=self._parts.mechanism.sampler,
        record_attempt=self._ledger.append,
        train=lambda *args: self._train(engine, last, *args),
        price=self._price,
        evaluate=lambda s: _prefixed('test_', self._evaluate(_weights(s))),
        write_row=write_row,
        save=self._checkpoints.save,
        stop_requested=stop_requested,
      )
      try:
        state = rounds.run(
          state,
          first=completed + 1,
          last=last,
          evaluate_every=self._experiment.evaluate_every,
          checkpoint_every=self._experiment.checkpoint_every,
          evaluation_columns=tuple(_prefixed('test_', initial)),
          steps=steps,
        )
      except rounds.Interrupted as e:
        raise Interrupted(
          f'stopped after round {e.round_num} of {last}; everything is saved. '
          'Run the same command again to continue.'
        ) from None
      finally:
        bar.close()
      return self._finish(state, last)

  def _train(
    self,
    engine: 'engines.Engine',
    last: int,
    state: Any,
    round_num: int,
    clients: np.ndarray,
  ) -> tuple[Any, dict[str, float]]:
    from tff_pipeline.engines import measurements

    data = self._parts.task.train
    if round_num < last:
      # Data that is not in memory is read while this round trains.
      data.prefetch(self._parts.mechanism.sampler(round_num + 1))
    done = engine.round(state, round_num=round_num, clients=clients)
    return done.state, measurements.columns(done.metrics)

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
    if completed and self._ledger.entries[-1].noise_key != self._key:
      raise validate.error(
        'output_dir',
        expected='the noise key that the checkpoint was made with',
        found=f'another one in {self._folder / _NOISE_KEY}',
        remedy='Restore the file, or start a new run elsewhere',
      )

  def _price(self, round_num: int, evaluated: bool) -> dict[str, float]:
    released = self._ledger.release_counts(round_num)
    guarantee = self._parts.mechanism.guarantee
    return {
      'epsilon': accounting.headline(
        guarantee, released, delta=self._delta
      ).epsilon
      if evaluated
      else math.nan,
      'epsilon_rdp': accounting.epsilon(
        guarantee, released, delta=self._delta, accountant='rdp'
      ),
    }

  def _finish(self, state: Any, last: int) -> dict[str, Any]:
    from tff_pipeline.outputs import saved_model

    weights = _weights(state)
    saved_model.write(
      self._folder / 'model', self._parts.task.model_factory, weights
    )
    if self._parts.task.encoding:
      run_directory.write_json(
        self._folder / _ENCODING, dict(self._parts.task.encoding)
      )
    statement = self._statement(last)
    run_directory.write_json(self._folder / _STATEMENT, statement)
    finished = last == self._experiment.rounds
    summary = {
      'status': FINISHED if finished else AT_MAX_EPSILON,
      'rounds': last,
      'data': self._parts.task.label or 'real',
      'test': self._evaluate(weights),
      'privacy': statement,
      'versions': versions(),
    }
    run_directory.write_json(self._folder / _SUMMARY, summary)
    return run_directory.read_json(self._folder / _SUMMARY)

  def _statement(self, last: int) -> dict[str, Any]:
    statement = statements.build(
      config.terms(self._experiment),
      released=self._ledger.release_counts(last),
      replays=self._ledger.replays(),
      solved=self._solution,
    )
    statement['not_covered'] += self._parts.task.uncovered
    return statement


def _weights(state: Any) -> Any:
  return state.global_model_weights


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
  return {prefix + name: value for name, value in values.items()}
