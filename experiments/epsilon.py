"""Prices an experiment without training, or checks the price of a run.

  python -m experiments.epsilon --experiment=quickstart
  python -m experiments.epsilon --run_dir=runs/quickstart

The first prints epsilon by both accountants over the rounds, one table for
each guarantee, under the relation that its heading says. With
--privacy.target_epsilon it first solves for the noise, or for what
--privacy.solve_for says. Without an experiment, the flags of cohort, privacy
and rounds are enough.

The second derives the privacy statement of a run again, from config.json and
ledger alone, and says whether privacy.json agrees: exit status 0 if it does, 1
if not.
"""

from collections.abc import Mapping
import json
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli
from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory

if TYPE_CHECKING:
  from tff_pipeline.privacy import accounting
  from tff_pipeline.privacy import calibration

_ACCOUNTANTS = ('pld', 'rdp')

# What an experiment must have, but its price does not depend on.
_UNPRICED = {'task.name': 'none', 'client.learning_rate': 1.0}
_UNPRICED_IF_FEDERATED = {'server.learning_rate': 1.0}
_UNPRICED_IF_SHUFFLED = {'client.batch_size': 1}


def define_flags() -> None:
  """Defines the flags of this binary."""
  cli.define_experiment()
  flags.DEFINE_enum(
    'accountant',
    'both',
    ['both', *_ACCOUNTANTS],
    'Accountant to print. A target epsilon is always solved by the tighter.',
  )
  flags.DEFINE_string(
    'run_dir', None, 'Run directory whose privacy statement is derived again.'
  )


def main() -> int:
  """Prints a price or the outcome of a check; returns the exit status."""
  given = config_flags.given(flags.FLAGS)
  named = flags.FLAGS['experiment'].value is not None
  run_dir = flags.FLAGS['run_dir'].value
  if run_dir is not None and (given or named):
    raise validate.error(
      'run_dir',
      expected='no --experiment and no flags of its leaves beside it',
      found=run_dir,
    )
  if run_dir is not None:
    return check_run(pathlib.Path(run_dir))
  experiment = cli.read_experiment() if named else priced_alone(given)
  accountant = flags.FLAGS['accountant'].value
  print_price(
    experiment, _ACCOUNTANTS if accountant == 'both' else (accountant,)
  )
  return 0


def priced_alone(given: Mapping[str, Any]) -> config.Experiment:
  """Returns an experiment with these leaves, as far as its price goes."""
  filled = _UNPRICED
  if given.get('algorithm.name') != config.AlgorithmName.CENTRALIZED:
    filled = filled | _UNPRICED_IF_FEDERATED
    if 'client.sampling_rate' not in given:
      filled = filled | _UNPRICED_IF_SHUFFLED
  return config_flags.apply(None, filled | given)


def print_price(
  experiment: config.Experiment, accountants: tuple[str, ...]
) -> None:
  """Prints epsilon over the rounds, and the guarantee in one sentence."""
  from tff_pipeline.privacy import guarantees
  from tff_pipeline.privacy import statement

  solution = _solve(experiment)
  if solution is not None:
    extrapolated = experiment.privacy.noise_cohort_size is not None
    print(
      f'Solved --privacy.target_epsilon={solution.target_epsilon:g}: '
      f'--{solution.leaf}={solution.value} spends '
      f'{statement.shown(solution.price.epsilon)} '
      f'({solution.price.accountant.upper()}'
      + (', extrapolated' if extrapolated else '')
      + ').\n'
    )
    experiment = config.with_solution(experiment, solution.leaf, solution.value)
  terms = config.terms(experiment)
  derived = statement.build(
    terms, released=experiment.rounds, accountants_used=accountants
  )
  guaranteed = guarantees.build(terms)
  for name, one in {'': guaranteed, **guaranteed.also}.items():
    part = derived[name] if name else derived
    table = _table(
      one,
      rounds=experiment.rounds,
      delta=experiment.privacy.delta,
      accountants=accountants,
    )
    print(f'{_heading(name, part)}\n{table}\n\n{part["sentence"]}\n')


def check_run(run_dir: pathlib.Path) -> int:
  """Derives the statement of a run again; returns 0 if privacy.json agrees."""
  saved = _read_json(run_dir / 'config.json')
  run_directory.check_record(saved, run_dir / 'config.json')
  claimed = _read_json(run_dir / 'privacy.json')
  experiment, solved = _priced_config(run_dir, saved)

  from tff_pipeline.privacy import ledger
  from tff_pipeline.privacy import statement

  started = ledger.Ledger.read(run_dir / 'ledger')
  derived = statement.build(
    config.terms(experiment),
    released=started.release_counts(started.last_round),
    replays=started.replays(),
    solved=solved,
    uncovered=saved.get('uncovered', ()),
  )
  for part in (derived, *statement.nested(derived).values()):
    print(part['sentence'])
  wrong = statement.differences(claimed, derived)
  if not wrong:
    print(f'{run_dir / "privacy.json"} agrees with config.json and ledger.')
    return 0
  print(
    f'{run_dir / "privacy.json"} does NOT agree with config.json and ledger:'
  )
  print('\n'.join(f'  {line}' for line in wrong))
  if claimed.get('rounds') != derived['rounds']:
    print('A run that is still going, or was interrupted, differs in rounds.')
  return 1


def _solve(experiment: config.Experiment) -> 'calibration.Solution | None':
  from tff_pipeline.privacy import calibration

  if experiment.privacy.target_epsilon is None:
    return None
  return calibration.solve(config.terms(experiment), rounds=experiment.rounds)


def _heading(name: str, statement: Mapping[str, Any]) -> str:
  """Returns what the figures of a table are about."""
  if statement['unit'] is None:
    return 'No differential privacy:'
  heading = f'{statement["unit"].capitalize()}-level, {statement["relation"]}'
  if name:
    heading = f'{name}: {heading}'
  if statement['clients'] is not None:
    heading += ', the client that took part most often'
  if statement['extrapolated']:
    heading += ', extrapolated'
  return heading + ':'


def _table(
  guaranteed: 'accounting.Guarantee',
  *,
  rounds: int,
  delta: float | None,
  accountants: tuple[str, ...],
) -> str:
  """Returns epsilon at some rounds, one column for each accountant."""
  from tff_pipeline.privacy import accounting
  from tff_pipeline.privacy import statement

  lines = [
    '    rounds' + ''.join(f'  epsilon ({a.upper()})' for a in accountants)
  ]
  for milestone in sorted({max(1, rounds // 4), max(1, rounds // 2), rounds}):
    cells = [
      statement.shown(
        accounting.epsilon(
          guaranteed,
          milestone,
          delta=delta,
          accountant=accountant,
        )
      )
      for accountant in accountants
    ]
    lines.append(f'{milestone:10d}' + ''.join(f'{cell:>15}' for cell in cells))
  return '\n'.join(lines)


def _priced_config(
  run_dir: pathlib.Path, saved: Mapping[str, Any]
) -> tuple[config.Experiment, Mapping[str, Any] | None]:
  """Returns the experiment that ran, with what was solved filled in."""
  try:
    experiment, solved = config.from_dict(saved['config']), saved.get('solved')
    if solved is not None:
      experiment = config.with_solution(
        experiment, solved['leaf'], solved['value']
      )
  except (KeyError, TypeError, ValueError) as error:
    raise validate.UsageError(
      f'{run_dir / "config.json"}: not the config of a run: {error}'
    ) from error
  return experiment, solved


def _read_json(path: pathlib.Path) -> Mapping[str, Any]:
  try:
    values = json.loads(path.read_bytes())
  except OSError as error:
    raise validate.UsageError(f'{path}: {error.strerror}') from error
  except ValueError as error:
    raise validate.UsageError(f'{path}: not JSON: {error}') from error
  if not isinstance(values, dict):
    raise validate.UsageError(f'{path}: not a JSON object')
  return values


if __name__ == '__main__':
  define_flags()
  cli.run(main)
