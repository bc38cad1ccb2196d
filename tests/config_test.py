"""Tests for config: tables over all leaves, cross-checks, random values.

The tables are derived from the dataclasses, so a new leaf is tested by being
declared.
"""

import dataclasses
import enum
import json
import math

import hypothesis
from hypothesis import strategies as st
import pytest

from tff_pipeline import config
from tff_pipeline import validate

SECTIONS = {
  f.name: f.type
  for f in dataclasses.fields(config.Experiment)
  if dataclasses.is_dataclass(f.type)
}
RECORDS = [*SECTIONS.values(), config.Experiment]
HUGE = 10**400


def _leaves(record):
  return [f for f in dataclasses.fields(record) if 'rule' in f.metadata]


LEAVES = {
  (f'{record.section}.{f.name}' if record.section else f.name): (record, f)
  for record in RECORDS
  for f in _leaves(record)
}
each_leaf = pytest.mark.parametrize(
  'flag, record, leaf',
  [(flag, *where) for flag, where in LEAVES.items()],
  ids=list(LEAVES),
)

VALID = {
  'task.name': 'digits',
  'task.partition': 'dirichlet',
  'task.clients': 100,
  'task.concentration': 0.5,
  'cohort.sampling': 'poisson',
  'cohort.clients_per_round': 20,
  'client.batch_size': 10,
  'client.learning_rate': 0.1,
  'client.momentum': 0.5,
  'server.learning_rate': 1.0,
  'privacy.mechanism': 'gaussian',
  'privacy.noise_multiplier': 1.0,
  'privacy.clip_norm': 0.5,
  'privacy.delta': 1e-3,
  'privacy.population': 100,
  'rounds': 10,
}
NOT_PRIVATE = {
  name: value for name, value in VALID.items() if 'privacy.' not in name
} | {'privacy.mechanism': 'none'}


def _experiment(values):
  """Builds an experiment from flag names; a value `None` leaves it out."""
  nested = {}
  for name, value in values.items():
    head, dot, leaf = name.partition('.')
    if dot:
      nested.setdefault(head, {})[leaf] = value
    else:
      nested[head] = value
  return config.from_dict(nested)


def _sample(leaf):
  """Returns a value within the leaf's bounds."""
  kind, bounds = config.leaf_type(leaf), leaf.metadata['rule'].bounds
  if issubclass(kind, enum.StrEnum):
    return next(iter(kind))
  if kind is str:
    return 'name'
  low = bounds.get('at_least', bounds.get('above', 0.0))
  high = bounds.get('at_most', bounds.get('below', low + 2))
  return kind((low + high) / 2)


def _record(record, **given):
  """Builds one record, with samples for what the given leaves need."""
  values = dict(given)
  if record is config.Experiment:
    for name in SECTIONS:
      values[name] = getattr(_experiment(VALID), name)
    values.setdefault('rounds', 10)
  if record is config.Client and 'sampling_rate' not in values:
    values.setdefault('batch_size', 10)
  for leaf in reversed(_leaves(record)):  # A choice may need one before it.
    rule = leaf.metadata['rule']
    if leaf.name in values and rule.used_by:
      values.setdefault(rule.used_by[0], rule.used_by[1][0])
  for leaf in _leaves(record):
    rule = leaf.metadata['rule']
    choice, users = rule.used_by or (None, ())
    defaults = {f.name: f.default for f in _leaves(record)}
    used = choice is None or values.get(choice, defaults[choice]) in users
    if rule.required and used:
      values.setdefault(leaf.name, _sample(leaf))
  return record(**values)


def _choices(record, choice, users):
  """Returns the values of a choice; names of tasks are known to tasks alone."""
  leaf = record.__dataclass_fields__[choice]
  if leaf is config.Task.__dataclass_fields__['name']:
    return [*users, 'digits']
  return list(config.leaf_type(leaf))


def _message(build, *args, **kwargs):
  with pytest.raises(validate.UsageError) as caught:
    build(*args, **kwargs)
  message = str(caught.value)
  assert '\n' not in message
  return message


def _bad_values(leaf):
  kind, bounds = config.leaf_type(leaf), leaf.metadata['rule'].bounds
  if issubclass(kind, enum.StrEnum):
    return ['no_such_choice', 3, True, [], '', 'a\nb']
  if kind is str:
    return [3, True, [], b'name']
  steps = {'above': 0, 'below': 0, 'at_least': -1, 'at_most': 1}
  outside = [kind(bound + steps[name]) for name, bound in bounds.items()]
  wrong_type = ['1', 'x\ny', True, [], math.nan, math.inf, -math.inf]
  wrong_type += [1.5, 2.0] if kind is int else [HUGE, -HUGE]
  return outside + wrong_type


@each_leaf
def test_leaf_has_help_and_a_type(flag, record, leaf):
  rule = leaf.metadata['rule']
  assert len(rule.help) > 10 and rule.help.endswith('.')
  assert config.leaf_type(leaf) in (int, float, str) or issubclass(
    config.leaf_type(leaf), enum.StrEnum
  )


@each_leaf
def test_number_is_bounded_below(flag, record, leaf):
  if config.leaf_type(leaf) in (int, float):
    assert {'above', 'at_least'} & set(leaf.metadata['rule'].bounds)


@each_leaf
def test_used_by_names_a_choice_of_the_record(flag, record, leaf):
  rule = leaf.metadata['rule']
  if rule.used_by is None:
    return
  choice, users = rule.used_by
  assert set(users) <= set(_choices(record, choice, users))


@each_leaf
def test_sample_is_accepted_and_typed(flag, record, leaf):
  built = getattr(_record(record, **{leaf.name: _sample(leaf)}), leaf.name)
  assert type(built) is config.leaf_type(leaf)


@each_leaf
def test_bad_value_names_the_flag(flag, record, leaf):
  for value in _bad_values(leaf):
    message = _message(_record, record, **{leaf.name: value})
    assert message.startswith(f'--{flag}: expected '), value


@each_leaf
def test_default_cannot_be_unset(flag, record, leaf):
  if leaf.default is not None:
    message = _message(_record, record, **{leaf.name: None})
    assert message.startswith(f'--{flag}: expected a value')


@each_leaf
def test_required_leaf_is_missed(flag, record, leaf):
  rule = leaf.metadata['rule']
  if not rule.required:
    return
  choices = [{}]
  if rule.used_by is not None:
    choices = [{rule.used_by[0]: user} for user in rule.used_by[1]]
  for choice in choices:
    message = _message(_record, record, **choice, **{leaf.name: None})
    assert message.startswith(f'--{flag}: expected a value')


@each_leaf
def test_unused_leaf_names_leaf_and_choice(flag, record, leaf):
  rule = leaf.metadata['rule']
  if rule.used_by is None:
    return
  choice, users = rule.used_by
  for other in _choices(record, choice, users):
    if other in users:
      continue
    values = {choice: other, leaf.name: _sample(leaf)}
    message = _message(_record, record, **values)
    assert message.startswith(f'--{flag}: expected no value')
    assert f'{choice}={other} does not use it' in message


def test_records_are_frozen():
  for record in RECORDS:
    with pytest.raises(dataclasses.FrozenInstanceError):
      _record(record).name = 'other'


@pytest.mark.parametrize(
  'leaves, flag, found',
  [
    ({}, 'client.batch_size', 'nothing'),
    ({'batch_size': 4, 'sampling_rate': 0.1}, 'client.batch_size', 'both'),
    ({'sampling_rate': 0.1, 'shuffle': 'off'}, 'client.shuffle', 'off'),
  ],
)
def test_a_client_has_one_kind_of_batches(leaves, flag, found):
  message = _message(config.Client, learning_rate=0.1, **leaves)
  assert message.startswith(f'--{flag}:') and found in message


SAMPLED = {
  'client.batch_size': None,
  'client.sampling_rate': 0.1,
  'privacy.mechanism': 'dp_sgd',
}


def test_poisson_batches_are_for_noised_steps():
  assert _experiment(VALID | SAMPLED).client.sampled_steps == 10
  beneath = {
    'privacy.mechanism': 'gaussian',
    'privacy.example_noise_multiplier': 1.0,
    'privacy.example_clip_norm': 1.0,
  }
  assert _experiment(VALID | SAMPLED | beneath).client.sampling_rate == 0.1


@pytest.mark.parametrize(
  'leaves, flag',
  [
    ({'privacy.mechanism': 'gaussian'}, 'client.sampling_rate'),
    (
      {
        'algorithm.name': 'centralized',
        'algorithm.batches': 'poisson',
        'cohort.sampling': 'full',
        'cohort.clients_per_round': None,
        'server.learning_rate': None,
      },
      'client.sampling_rate',
    ),
    (
      {
        'personalization.name': 'fine_tuning',
        'personalization.validation_clients': 1,
        'personalization.test_clients': 1,
        'personalization.epochs': 1,
        'personalization.learning_rate': 0.1,
        'privacy.population': 98,
      },
      'personalization.batch_size',
    ),
  ],
)
def test_poisson_batches_are_refused_elsewhere(leaves, flag):
  message = _message(_experiment, VALID | SAMPLED | leaves)
  assert message.startswith(f'--{flag}:')


def test_whole_number_becomes_a_float():
  server = config.Server(learning_rate=1)
  assert server == config.Server(learning_rate=1.0)
  assert type(server.learning_rate) is float


TARGET = {'privacy.target_epsilon': 2.0, 'privacy.noise_multiplier': None}

ACCEPTED = {
  'private': {},
  'clipping without noise': {'privacy.noise_multiplier': 0},
  'fixed noise seed': {'privacy.noise_seed': 0},
  'target for noise': TARGET,
  'target for noise, said': TARGET | {'privacy.solve_for': 'noise_multiplier'},
  'target for rounds': {
    'privacy.target_epsilon': 2.0,
    'privacy.solve_for': 'rounds',
    'rounds': None,
  },
  'target for cohort': {
    'privacy.target_epsilon': 2.0,
    'privacy.solve_for': 'clients_per_round',
    'cohort.clients_per_round': None,
  },
  'full': {'cohort.sampling': 'full', 'cohort.clients_per_round': None},
  'whole population': {'cohort.clients_per_round': 100},
  'population of natural clients': {
    'task.partition': 'natural',
    'task.clients': None,
    'task.concentration': None,
  },
  'delta just below': {'privacy.delta': math.nextafter(0.01, 0.0)},
}

REFUSED = {
  'delta of 1/population': ({'privacy.delta': 0.01}, 'privacy.delta'),
  'delta above it': ({'privacy.delta': 0.5}, 'privacy.delta'),
  'cohort over population': (
    {'cohort.clients_per_round': 101},
    'cohort.clients_per_round',
  ),
  'population over clients': (
    {'privacy.population': 120},
    'privacy.population',
  ),
  'population under clients': (
    {'privacy.population': 50},
    'privacy.population',
  ),
  'weights with privacy': (
    {'algorithm.weighting': 'num_examples'},
    'algorithm.weighting',
  ),
  'a silo alone in a federation': ({'task.only_client': 0}, 'task.only_client'),
  'infinite clip norm': ({'privacy.clip_norm': math.inf}, 'privacy.clip_norm'),
  'no rounds': ({'rounds': None}, 'rounds'),
  'no cohort size': (
    {'cohort.clients_per_round': None},
    'cohort.clients_per_round',
  ),
  'no noise': (
    {'privacy.noise_multiplier': None},
    'privacy.noise_multiplier',
  ),
  'target and noise': (
    {'privacy.target_epsilon': 2.0},
    'privacy.noise_multiplier',
  ),
  'target and rounds': (
    {'privacy.target_epsilon': 2.0, 'privacy.solve_for': 'rounds'},
    'rounds',
  ),
  'what to solve, no target': (
    {'privacy.solve_for': 'rounds'},
    'privacy.solve_for',
  ),
  'cohort of full participation': (
    {
      'privacy.target_epsilon': 2.0,
      'privacy.solve_for': 'clients_per_round',
      'cohort.sampling': 'full',
      'cohort.clients_per_round': None,
    },
    'privacy.solve_for',
  ),
  'noise without mechanism': (
    {'privacy.mechanism': 'none'},
    'privacy.noise_multiplier',
  ),
}


@pytest.mark.parametrize('changes', ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(changes):
  assert _experiment(VALID | changes)


def test_accepted_without_privacy():
  assert _experiment(NOT_PRIVATE | {'algorithm.weighting': 'num_examples'})


@pytest.mark.parametrize('changes, flag', REFUSED.values(), ids=REFUSED)
def test_refused(changes, flag):
  message = _message(_experiment, VALID | changes)
  assert message.startswith(f'--{flag}: ')


@pytest.mark.parametrize('changes', ACCEPTED.values(), ids=ACCEPTED)
def test_dict_round_trip(changes):
  experiment = _experiment(VALID | changes)
  plain = json.loads(json.dumps(config.to_dict(experiment)))
  assert config.from_dict(plain) == experiment


def test_dict_holds_set_leaves_as_plain_values():
  plain = config.to_dict(_experiment(VALID))
  assert plain['cohort'] == {'sampling': 'poisson', 'clients_per_round': 20}
  assert type(plain['cohort']['sampling']) is str
  assert 'model' not in plain['task']


@pytest.mark.parametrize(
  'values, flag',
  [
    ({}, 'task.name'),
    ({'nonsense': 1}, 'nonsense'),
    ({'task': {'nam': 'x'}}, 'task.nam'),
    ({'task': 'digits'}, 'task'),
    ({'task': None}, 'task'),
  ],
)
def test_bad_dict_names_the_leaf(values, flag):
  assert _message(config.from_dict, values).startswith(f'--{flag}: ')


def _values(leaf):
  """Returns a strategy: mostly plausible values, some of them rubbish."""
  kind = config.leaf_type(leaf)
  rubbish = st.one_of(
    st.none(), st.booleans(), st.text(), st.floats(), st.integers(), st.just([])
  )
  if issubclass(kind, enum.StrEnum):
    plausible = st.sampled_from(list(map(str, kind)))
  elif kind is str:
    plausible = st.text()
  elif kind is int:
    plausible = st.integers(-1, 200) | st.just(HUGE)
  else:
    plausible = st.floats(-0.5, 2.0) | st.sampled_from([1e-5, HUGE, -HUGE])
  return st.one_of(plausible, plausible, plausible, rubbish)


CHANGES = st.lists(
  st.one_of(
    [
      st.tuples(st.just(flag), _values(leaf))
      for flag, (_, leaf) in LEAVES.items()
    ]
  ),
  max_size=3,
).map(dict)


@hypothesis.settings(deadline=None, max_examples=300, derandomize=True)
@hypothesis.given(base=st.sampled_from([VALID, NOT_PRIVATE]), changes=CHANGES)
def test_random_values_are_valid_or_refused_in_one_line(base, changes):
  try:
    experiment = _experiment(base | changes)
  except validate.UsageError as error:
    hypothesis.event('refused')
    assert str(error).startswith('--') and len(str(error).splitlines()) == 1
    return
  hypothesis.event('accepted')
  assert config.from_dict(config.to_dict(experiment)) == experiment


@pytest.mark.parametrize('leaf', ['max_examples', 'max_steps'])
def test_limits_of_a_client_are_no_limits_of_centralized_training(leaf):
  def build(**client):
    return config.Experiment(
      task=config.Task(name='digits', partition='iid', clients=3),
      cohort=config.full(),
      client=config.Client(batch_size=5, learning_rate=0.1, **client),
      server=config.Server(),
      privacy=config.no_privacy(),
      algorithm=config.Algorithm(name='centralized', batches='poisson'),
      rounds=1,
    )

  build()
  with pytest.raises(validate.UsageError, match=f'--client.{leaf}.*no value'):
    build(**{leaf: 4})
  with pytest.raises(validate.UsageError, match=f'--client.{leaf}.*at least 1'):
    config.Client(batch_size=5, **{leaf: 0})


@pytest.mark.parametrize('silo, accepted', [(2, True), (3, False)])
def test_a_silo_alone_is_one_of_those_that_there_are(silo, accepted):
  def build():
    return config.Experiment(
      task=config.Task(
        name='digits', partition='iid', clients=3, only_client=silo
      ),
      cohort=config.full(),
      client=config.Client(batch_size=5, learning_rate=0.1),
      server=config.Server(),
      privacy=config.no_privacy(),
      algorithm=config.Algorithm(name='centralized', batches='poisson'),
      rounds=1,
    )

  if accepted:
    assert build().task.only_client == silo
    return
  with pytest.raises(validate.UsageError, match='below --task.clients=3'):
    build()
