"""Tests for config_flags: flags mirror leaves, precedence, dropped leaves."""

import enum

from absl import flags
import hypothesis
from hypothesis import strategies as st
import pytest

from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import validate

LEAVES = config_flags.leaves()
each_leaf = pytest.mark.parametrize(
  'name, leaf', LEAVES.items(), ids=list(LEAVES)
)

FILE = config.Experiment(
  task=config.Task(
    name='digits', partition='dirichlet', clients=100, concentration=0.5
  ),
  cohort=config.poisson(20),
  client=config.Client(batch_size=10, learning_rate=0.1, momentum=0.5),
  server=config.Server(optimizer='adam', learning_rate=1.0, beta_1=0.8),
  privacy=config.gaussian(
    noise_multiplier=1.0, clip_norm=0.5, delta=1e-3, population=100
  ),
  rounds=10,
)
NOISE_TARGET = config_flags.apply(FILE, {'privacy.target_epsilon': 2.0})
ROUNDS_TARGET = config_flags.apply(
  FILE, {'privacy.target_epsilon': 2.0, 'privacy.solve_for': 'rounds'}
)


def _parse(*arguments):
  """Returns the given leaves of a command line."""
  flag_values = flags.FlagValues()
  config_flags.define(flag_values)
  flags.DEFINE_string('experiment', None, 'A file.', flag_values=flag_values)
  flag_values(config_flags.flagfiles_first(['train', *arguments]))
  return config_flags.given(flag_values)


def _get(experiment, name):
  for part in name.split('.'):
    experiment = getattr(experiment, part)
  return experiment


def _text(leaf):
  kind = config.leaf_type(leaf)
  if issubclass(kind, enum.StrEnum):
    return str(list(kind)[-1])
  return {int: '7', float: '0.25', str: 'name'}[kind]


def test_every_leaf_is_a_flag_and_nothing_else_is():
  flag_values = flags.FlagValues()
  own = set(flag_values)
  config_flags.define(flag_values)
  assert set(flag_values) - own == set(LEAVES)


def test_leaves_cover_the_whole_experiment():
  covered = set(config_flags._flatten(config.to_dict(FILE)))
  assert covered <= set(LEAVES)


def test_nothing_given():
  assert _parse() == {}


@each_leaf
def test_flag_is_parsed_as_the_leaf(name, leaf):
  kind = config.leaf_type(leaf)
  expected = str if issubclass(kind, enum.StrEnum) else kind
  values = _parse(f'--{name}={_text(leaf)}')
  assert values == {name: expected(_text(leaf))}
  assert type(values[name]) is expected


@each_leaf
def test_wrong_type_names_the_flag_in_one_line(name, leaf):
  kind = config.leaf_type(leaf)
  bad = ['']
  if kind in (int, float):
    bad += ['many', '1,5', 'True'] + (['1.5', '1e3'] if kind is int else [])
  for text in bad:
    with pytest.raises(flags.IllegalFlagValueError) as caught:
      _parse(f'--{name}={text}')
    message = str(caught.value)
    assert f'--{name}={text}: expected ' in message and '\n' not in message


@each_leaf
def test_typo_is_answered_with_the_flag(name, leaf):
  with pytest.raises(flags.UnrecognizedFlagError) as caught:
    _parse(f'--{name[:-1]}={_text(leaf)}')
  assert 'Did you mean' in str(caught.value) and name in str(caught.value)


@each_leaf
def test_missing_section_is_answered_with_the_flag(name, leaf):
  flag_values = flags.FlagValues()
  config_flags.define(flag_values)
  if '.' in name:
    last = name.rpartition('.')[-1]
    assert name in config_flags.suggestions(last, flag_values)
  assert config_flags.suggestions('no_such_leaf', flag_values) == []


@each_leaf
def test_bad_choice_or_bound_is_the_first_news(name, leaf):
  """Even when everything else is missing."""
  kind = config.leaf_type(leaf)
  bad = -1e9 if kind is float else -(10**9) if kind is int else 'no such'
  if kind is not str:
    with pytest.raises(validate.UsageError, match=f'^--{name}: expected'):
      config_flags.apply(None, {name: bad})


@each_leaf
def test_help_shows_the_leaf_under_its_section(name, leaf):
  flag_values = flags.FlagValues()
  config_flags.define(flag_values)
  text = config_flags.help_text(flag_values)
  heading = f'{config_flags.section(name)}:'
  groups = [group.splitlines() for group in text.split('\n\n')]
  (group,) = [group for group in groups if group[0] == heading]
  assert any(line.startswith(f'  --{name}=') for line in group)
  shown = ' '.join(text.split())
  assert leaf.metadata['rule'].help in shown
  if leaf.default is not None:
    assert f'default {leaf.default}' in flag_values[name].help
  if leaf.metadata['rule'].required:
    assert 'required' in flag_values[name].help
  for user in (leaf.metadata['rule'].used_by or ((), ()))[1]:
    assert user in flag_values[name].help


def test_help_is_readable():
  flag_values = flags.FlagValues()
  config_flags.define(flag_values)
  own = flags.Flag(
    flags.ArgumentParser(), None, 'output_dir', 'runs', 'Where results go.'
  )
  text = config_flags.help_text(flag_values, run_flags=[own])
  headings = [line[:-1] for line in text.splitlines() if line[:1].strip()]
  assert headings == [
    *(
      'task',
      'cohort',
      'client',
      'server',
      'privacy',
      'algorithm',
      'compression',
      'attack',
      'personalization',
      'run',
    )
  ]
  assert '  --output_dir=TEXT\n      Where results go. [default runs]' in text
  usage = ('  --',)
  assert all(len(x) <= 80 for x in text.splitlines() if x[:4] not in usage)


def test_defaults_alone_lack_the_required_leaves():
  with pytest.raises(validate.UsageError, match='^--task.name: expected a'):
    config_flags.apply(None, {})


def test_flags_alone_make_an_experiment():
  given = config_flags._flatten(config.to_dict(FILE))
  assert config_flags.apply(None, given) == FILE


def test_nothing_given_changes_nothing():
  assert config_flags.apply(FILE, {}) == FILE


def test_unknown_leaf_is_named():
  with pytest.raises(validate.UsageError, match='^--task.nam: '):
    config_flags.apply(FILE, {'task.nam': 'x'})


@pytest.mark.parametrize(
  'flagfile, command, seed',
  [
    (None, [], 0),
    ('--seed=1', [], 1),
    (None, ['--seed=2'], 2),
    ('--seed=1', ['--seed=2'], 2),
    ('# A comment\n\n--seed=1\n--rounds=3', ['--seed=2'], 2),
  ],
)
@pytest.mark.parametrize('place', ['first', 'last', 'two words'])
def test_precedence(tmp_path, flagfile, command, seed, place):
  """Dataclass < experiment file < --flagfile < command line."""
  arguments = list(command)
  if flagfile is not None:
    path = tmp_path / 'base.flags'
    path.write_text(flagfile)
    if place == 'first':
      arguments.insert(0, f'--flagfile={path}')
    elif place == 'last':
      arguments.append(f'--flagfile={path}')
    else:
      arguments += ['--flagfile', str(path)]
  assert config_flags.apply(FILE, _parse(*arguments)).seed == seed
  in_file = config_flags.apply(FILE, {'seed': 5})
  expected = seed if arguments else 5
  assert config_flags.apply(in_file, _parse(*arguments)).seed == expected


def test_later_flagfile_wins(tmp_path):
  paths = []
  for seed in (1, 2):
    paths.append(tmp_path / f'{seed}.flags')
    paths[-1].write_text(f'--seed={seed}')
  assert _parse(*(f'--flagfile={path}' for path in paths)) == {'seed': 2}


@pytest.mark.parametrize(
  'argv, expected',
  [
    ([], []),
    (['t'], ['t']),
    (['t', '--flagfile'], ['t', '--flagfile']),
    (['t', '-a', '-flagfile=f', 'b'], ['t', '-flagfile=f', '-a', 'b']),
    (['t', '-a', '--', '--flagfile=f'], ['t', '-a', '--', '--flagfile=f']),
  ],
)
def test_flagfiles_first(argv, expected):
  assert config_flags.flagfiles_first(argv) == expected


DROPPED = {
  'mechanism': (
    FILE,
    {'privacy.mechanism': 'none'},
    [
      'privacy.noise_multiplier',
      'privacy.clip_norm',
      'privacy.delta',
      'privacy.population',
    ],
  ),
  'mechanism with a target': (
    NOISE_TARGET,
    {'privacy.mechanism': 'none'},
    ['privacy.target_epsilon', 'privacy.clip_norm'],
  ),
  'client optimizer': (FILE, {'client.optimizer': 'adam'}, ['client.momentum']),
  'server optimizer': (
    FILE,
    {'server.optimizer': 'sgd', 'server.momentum': 0.9},
    ['server.beta_1'],
  ),
  'one optimizer of two': (FILE, {'server.optimizer': 'yogi'}, []),
  'partition': (FILE, {'task.partition': 'iid'}, ['task.concentration']),
  'natural partition': (
    FILE,
    {'task.partition': 'natural'},
    ['task.clients', 'task.concentration'],
  ),
  'sampling': (
    FILE,
    {'cohort.sampling': 'full'},
    ['cohort.clients_per_round'],
  ),
  'target': (
    FILE,
    {'privacy.target_epsilon': 2.0},
    ['privacy.noise_multiplier'],
  ),
  'sampling rate': (
    FILE,
    {'client.sampling_rate': 0.1, 'privacy.mechanism': 'dp_sgd'},
    ['client.batch_size'],
  ),
  'target for rounds': (
    FILE,
    {'privacy.target_epsilon': 2.0, 'privacy.solve_for': 'rounds'},
    ['rounds'],
  ),
  'solved leaf': (
    NOISE_TARGET,
    {'privacy.noise_multiplier': 0.7},
    ['privacy.target_epsilon', 'privacy.solve_for'],
  ),
  'solved rounds': (
    ROUNDS_TARGET,
    {'rounds': 30},
    ['privacy.target_epsilon', 'privacy.solve_for'],
  ),
  'other leaf than the solved': (NOISE_TARGET, {'rounds': 30}, []),
  'another thing to solve': (
    NOISE_TARGET,
    {'privacy.solve_for': 'rounds', 'privacy.noise_multiplier': 1.5},
    ['rounds'],
  ),
}


@pytest.mark.parametrize(
  'experiment, given, dropped', DROPPED.values(), ids=DROPPED
)
def test_dropped_leaves(experiment, given, dropped):
  result = config_flags.apply(experiment, given)
  for name, value in given.items():
    assert _get(result, name) == value
  for name in dropped:
    assert _get(result, name) is None
  kept = set(LEAVES) - set(given) - set(dropped)
  if experiment.privacy.mechanism != result.privacy.mechanism:
    kept = {name for name in kept if config_flags.section(name) != 'privacy'}
  for name in kept:
    assert _get(result, name) == _get(experiment, name), name


CONTRADICTIONS = {
  'unused leaf': (
    {'client.optimizer': 'adam', 'client.momentum': 0.9},
    'client.momentum',
  ),
  'unused with the choice of the file': (
    {'client.beta_1': 0.9},
    'client.beta_1',
  ),
  'noise without mechanism': (
    {'privacy.mechanism': 'none', 'privacy.noise_multiplier': 1.0},
    'privacy.noise_multiplier',
  ),
  'target without mechanism': (
    {'privacy.mechanism': 'none', 'privacy.target_epsilon': 1.0},
    'privacy.target_epsilon',
  ),
  'target and what it solves': (
    {'privacy.target_epsilon': 2.0, 'privacy.noise_multiplier': 1.0},
    'privacy.noise_multiplier',
  ),
  'solving nothing': ({'privacy.solve_for': 'rounds'}, 'privacy.solve_for'),
}


@pytest.mark.parametrize(
  'given, flag', CONTRADICTIONS.values(), ids=CONTRADICTIONS
)
def test_explicit_contradiction_is_an_error(given, flag):
  with pytest.raises(validate.UsageError, match=f'^--{flag}: expected no'):
    config_flags.apply(FILE, given)


TEXTS = st.one_of(
  st.sampled_from(['', '0', '1', '2', '0.5', '-1', 'nan', 'inf', '1e999']),
  st.sampled_from(['9' * 400, 'x', 'a\nb', '1_0', ' 3 ']),
  st.sampled_from(
    sorted(
      {
        str(choice)
        for leaf in LEAVES.values()
        if issubclass(config.leaf_type(leaf), enum.StrEnum)
        for choice in config.leaf_type(leaf)
      }
    )
  ),
  st.text(max_size=5),
)


@hypothesis.settings(deadline=None, max_examples=200, derandomize=True)
@hypothesis.given(
  experiment=st.sampled_from([None, FILE, NOISE_TARGET, ROUNDS_TARGET]),
  texts=st.dictionaries(st.sampled_from(list(LEAVES)), TEXTS, max_size=4),
)
def test_any_command_line_is_valid_or_refused(experiment, texts):
  try:
    given = _parse(*(f'--{name}={text}' for name, text in texts.items()))
    result = config_flags.apply(experiment, given)
  except validate.UsageError as error:
    assert str(error).startswith('--') and len(str(error).splitlines()) == 1
  except flags.Error as error:
    assert 'flag --' in str(error)
  else:
    for name, value in given.items():
      assert _get(result, name) == value
