"""The price list and the check of a run, without TensorFlow."""

import json
import subprocess
import sys

import pytest

from experiments import epsilon
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import calibration
from tff_pipeline.privacy import ledger
from tff_pipeline.privacy import statement

PRIVACY_FLAGS = (
  '--cohort.sampling=full',
  '--privacy.mechanism=gaussian',
  '--privacy.clip_norm=0.5',
  '--privacy.delta=1e-5',
  '--privacy.population=300',
)


def make(*, rounds=40, **privacy):
  return config.Experiment(
    task=config.Task(name='digits'),
    cohort=config.full(),
    client=config.Client(batch_size=4, learning_rate=0.1),
    server=config.Server(learning_rate=1.0),
    privacy=config.gaussian(
      clip_norm=0.5, delta=1e-5, population=300, **privacy
    ),
    rounds=rounds,
  )


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.epsilon', *arguments],
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )


@pytest.fixture
def run_dir(tmp_path):
  """A run of 40 rounds whose target was solved and of which two repeated."""
  experiment = make(target_epsilon=3.0)
  found = calibration.solve(config.terms(experiment), rounds=40)
  solved = {
    'leaf': found.leaf,
    'value': found.value,
    'target_epsilon': found.target_epsilon,
  }
  saved = {'format': 1, 'config': config.to_dict(experiment), 'solved': solved}
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  book = ledger.Ledger.open(tmp_path / 'ledger', noise_key='abc')
  for round_num in [*range(1, 31), *range(29, 41)]:
    book.append(round_num)
  claim(tmp_path, experiment, book, solved)
  return tmp_path


def claim(run_dir, experiment, book, solved):
  filled = config.with_solution(experiment, solved['leaf'], solved['value'])
  built = statement.build(
    config.terms(filled),
    released=book.release_counts(40),
    replays=book.replays(),
    solved=solved,
  )
  (run_dir / 'privacy.json').write_text(json.dumps(built, allow_nan=False))


def edit(path, **changes):
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_prices_by_both_accountants(capsys):
  epsilon.print_price(make(noise_multiplier=4.0), ('pld', 'rdp'))
  table, _, sentence = capsys.readouterr().out.partition('\n\n')
  assert table.splitlines()[0] == 'User-level, add_or_remove_one:'
  rows = [line.split() for line in table.splitlines()[2:]]
  assert [row[0] for row in rows] == ['10', '20', '40']
  assert rows[-1] == ['40', '7.52', '8.08']
  assert 'epsilon 7.52' in sentence


def test_solves_for_a_target(capsys):
  epsilon.print_price(make(target_epsilon=2.0), ('rdp',))
  out = capsys.readouterr().out
  assert 'Solved --privacy.target_epsilon=2: --privacy.noise_multiplier=' in out
  assert 'spends 2 (PLD)' in out
  for_rounds = make(
    target_epsilon=2.0, solve_for='rounds', noise_multiplier=9.0, rounds=None
  )
  epsilon.print_price(for_rounds, ('pld',))
  assert '--rounds=' in capsys.readouterr().out


def test_a_run_that_agrees(run_dir, capsys):
  before = {p: p.read_bytes() for p in run_dir.iterdir()}
  assert epsilon.check_run(run_dir) == 0
  assert 'agrees with config.json and ledger' in capsys.readouterr().out
  assert {p: p.read_bytes() for p in run_dir.iterdir()} == before


def test_a_smaller_claim_is_noticed(run_dir, capsys):
  edit(run_dir / 'privacy.json', epsilon=1.0)
  assert epsilon.check_run(run_dir) == 1
  out = capsys.readouterr().out
  assert 'does NOT agree' in out
  assert '  epsilon: privacy.json says 1.0, derived is 2.99' in out


def test_another_noise_multiplier_is_noticed(run_dir, capsys):
  saved = json.loads((run_dir / 'config.json').read_text())
  saved['solved']['value'] /= 2
  (run_dir / 'config.json').write_text(json.dumps(saved))
  assert epsilon.check_run(run_dir) == 1
  assert '  releases: ' in capsys.readouterr().out


def test_more_started_rounds_are_noticed(run_dir, capsys):
  ledger.Ledger.open(run_dir / 'ledger', noise_key='abc').append(41)
  assert epsilon.check_run(run_dir) == 1
  assert 'still going, or was interrupted' in capsys.readouterr().out


def test_a_replay_under_another_key_is_noticed(run_dir, capsys):
  ledger.Ledger.open(run_dir / 'ledger', noise_key='other').append(12)
  assert epsilon.check_run(run_dir) == 1
  assert '  rounds_by_noise_keys: ' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['config.json', 'privacy.json', 'ledger'])
def test_a_missing_file_is_named(run_dir, name):
  (run_dir / name).unlink()
  with pytest.raises(validate.UsageError, match=name):
    epsilon.check_run(run_dir)


@pytest.mark.parametrize('text', ['{"format": 1', '[]', '{}', '{"config": 3}'])
def test_a_broken_config_is_named(run_dir, text):
  (run_dir / 'config.json').write_text(text)
  with pytest.raises(validate.UsageError, match='config.json'):
    epsilon.check_run(run_dir)


def test_command_line(run_dir):
  priced = run(
    *PRIVACY_FLAGS,
    '--privacy.noise_multiplier=4',
    '--rounds=40',
    '--accountant=rdp',
  )
  assert priced.returncode == 0, priced.stderr
  assert priced.stdout.splitlines()[4].split() == ['40', '8.08']
  assert 'PLD' not in priced.stdout
  edit(run_dir / 'privacy.json', epsilon=1.0)
  checked = run(f'--run_dir={run_dir}')
  assert checked.returncode == 1, checked.stderr
  assert 'does NOT agree' in checked.stdout


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('--privacy.delta=0.1', *PRIVACY_FLAGS[:3]), '--privacy.population'),
    ((*PRIVACY_FLAGS, '--rounds=5'), '--privacy.noise_multiplier'),
    (('--run_dir=/nowhere',), '/nowhere/config.json'),
    (('--run_dir=/nowhere', '--rounds=5'), '--run_dir'),
    (('--experiment=quickstrat',), 'Did you mean quickstart?'),
    (('--accountant=pdl',), 'accountant'),
  ],
)
def test_mistakes_are_one_line(arguments, words):
  done = run(*arguments)
  assert done.returncode == 2
  assert words in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_help_is_fast_and_tensorflow_stays_out():
  shown = run('--help')
  assert shown.returncode == 0
  assert '--run_dir' in shown.stdout
  code = (
    'import sys\n'
    'from experiments import epsilon\n'
    'assert not {"dp_accounting", "scipy", "numpy"} & sys.modules.keys()\n'
    'from tff_pipeline.privacy import calibration, ledger, statement\n'
    'heavy = {"tensorflow", "tensorflow_federated", "jax", "keras"}\n'
    'assert not heavy & sys.modules.keys()\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


MECHANISMS = {
  'gaussian_adaptive': {
    'target_quantile': 0.5,
    'clip_learning_rate': 0.2,
    'clipped_count_stddev': 9.0,
  },
  'local': {'example_noise_multiplier': 2.0, 'example_clip_norm': 1.0},
  'dp_sgd': {},
}


@pytest.fixture(params=[*MECHANISMS, 'centralized'])
def other_run(request, tmp_path):
  """A run of another mechanism, replayed in part under another noise key."""
  centralized = request.param == 'centralized'
  mechanism = 'dp_sgd' if centralized else request.param
  experiment = config.Experiment(
    task=config.Task(name='digits'),
    cohort=config.full() if centralized else config.fixed_size(12),
    client=config.Client(batch_size=30, epochs=2, learning_rate=0.1),
    server=config.Server(learning_rate=None if centralized else 1.0),
    privacy=config.Privacy(
      mechanism=mechanism,
      noise_multiplier=4.0,
      clip_norm=0.5,
      delta=1e-5,
      population=300,
      **MECHANISMS[mechanism],
    ),
    algorithm=config.Algorithm(
      name='centralized' if centralized else 'fed_avg',
      batches='poisson' if centralized else None,
    ),
    rounds=12,
    seed=5,
  )
  saved = {'format': 1, 'config': config.to_dict(experiment)}
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  for key, rounds in (('abc', range(1, 9)), ('def', range(7, 13))):
    book = ledger.Ledger.open(tmp_path / 'ledger', noise_key=key)
    for round_num in rounds:
      book.append(round_num)
  built = statement.build(
    config.terms(experiment),
    released=book.release_counts(12),
    replays=book.replays(),
  )
  assert built['rounds_by_noise_keys'] == {'1': 10, '2': 2}
  (tmp_path / 'privacy.json').write_text(json.dumps(built, allow_nan=False))
  return tmp_path


def test_every_mechanism_is_derived_from_config_and_ledger(other_run, capsys):
  assert epsilon.check_run(other_run) == 0
  assert 'agrees with config.json and ledger' in capsys.readouterr().out
  claimed = json.loads((other_run / 'privacy.json').read_text())
  for name in ('', *statement.nested(claimed)):
    smaller = json.loads(json.dumps(claimed))
    (smaller[name] if name else smaller)['epsilon'] /= 2
    (other_run / 'privacy.json').write_text(json.dumps(smaller))
    assert epsilon.check_run(other_run) == 1
    assert f'  {name or "epsilon"}: ' in capsys.readouterr().out


def test_another_seed_is_noticed_where_clients_pay_for_what_they_did(
  other_run, capsys
):
  saved = json.loads((other_run / 'config.json').read_text())
  saved['config']['seed'] = 6
  (other_run / 'config.json').write_text(json.dumps(saved))
  mechanism = saved['config']['privacy']['mechanism']
  federated = saved['config']['algorithm']['name'] == 'fed_avg'
  depends = federated and mechanism in ('local', 'dp_sgd')
  assert epsilon.check_run(other_run) == int(depends)
  assert ('  clients: ' in capsys.readouterr().out) is depends


def test_tables_of_different_relations_are_apart(capsys):
  given = {
    'cohort.sampling': 'poisson',
    'cohort.clients_per_round': 20,
    'privacy.mechanism': 'gaussian',
    'privacy.noise_multiplier': 4.0,
    'privacy.clip_norm': 1.0,
    'privacy.delta': 1e-5,
    'privacy.population': 1000,
    'privacy.example_noise_multiplier': 3.0,
    'privacy.example_clip_norm': 1.0,
    'rounds': 10,
  }
  epsilon.print_price(epsilon.priced_alone(given), ('pld',))
  headings = [
    line for line in capsys.readouterr().out.splitlines() if line[-1:] == ':'
  ]
  assert headings == [
    'User-level, add_or_remove_one:',
    'example_level: Example-level, zero_out, the client that took part most '
    'often:',
  ]
  del given['privacy.example_noise_multiplier']
  del given['privacy.example_clip_norm']
  del given['privacy.noise_multiplier']
  extra = {'privacy.noise_cohort_size': 200, 'privacy.target_epsilon': 2.0}
  epsilon.print_price(epsilon.priced_alone(given | extra), ('pld',))
  out = capsys.readouterr().out
  assert 'spends 2 (PLD, extrapolated)' in out
  assert 'User-level, add_or_remove_one, extrapolated:' in out
  assert 'as_run: User-level, add_or_remove_one:' in out


def test_a_centralized_price_needs_its_batch():
  given = {
    'algorithm.name': 'centralized',
    'algorithm.batches': 'poisson',
    'cohort.sampling': 'full',
    'privacy.mechanism': 'none',
    'rounds': 10,
  }
  with pytest.raises(validate.UsageError, match='--client.batch_size'):
    epsilon.priced_alone(given)
