"""Tests for validate: one line with the flag, what fits and what came."""

import math

import pytest

from tff_pipeline import validate


@pytest.mark.parametrize(
  'found, shown',
  [
    (3, '3'),
    (-0.5, '-0.5'),
    (math.nan, 'nan'),
    (None, 'None'),
    ('smg', 'smg'),
    ('', "''"),
    ('a\nb', "'a\\nb'"),
    ([1, 2], '[1, 2]'),
  ],
)
def test_error_shape(found, shown):
  error = validate.error('privacy.delta', expected='a number', found=found)
  assert str(error) == f'--privacy.delta: expected a number, found {shown}.'


@pytest.mark.parametrize(
  'remedy, ending',
  [
    ('', 'found 0.'),
    ('Raise it', 'found 0. Raise it.'),
    ('Raise it.', 'found 0. Raise it.'),
    ('Did you mean 1?', 'found 0. Did you mean 1?'),
  ],
)
def test_remedy_ends_in_one_stop(remedy, ending):
  error = validate.error('rounds', expected='>= 1', found=0, remedy=remedy)
  assert str(error).endswith(ending)


def test_usage_error_is_a_value_error():
  assert issubclass(validate.UsageError, ValueError)


@pytest.mark.parametrize('value', ['sgd', 'adam'])
def test_choice_accepts(value):
  validate.check_choice('server.optimizer', value, ('sgd', 'adam'))


@pytest.mark.parametrize(
  'value, suggestion',
  [('smg', 'sgd'), ('Adam', 'adam'), ('zzz', None), (3, None), ([], None)],
)
def test_choice_refuses_and_suggests(value, suggestion):
  with pytest.raises(validate.UsageError) as caught:
    validate.check_choice('server.optimizer', value, ('sgd', 'adam'))
  message = str(caught.value)
  assert message.startswith('--server.optimizer: expected one of adam, sgd')
  if suggestion:
    assert message.endswith(f'Did you mean {suggestion}?')
  else:
    assert 'Did you mean' not in message


HUGE = 10**400  # Larger than any float.


@pytest.mark.parametrize(
  'bounds, good, bad',
  [
    ({}, [0, -1.5, HUGE], [math.nan, math.inf, -math.inf]),
    ({'above': 0}, [1e-300, 1, HUGE], [0, -1, -HUGE, math.nan, math.inf]),
    ({'at_least': 1}, [1, 2, HUGE], [0, 0.999, -HUGE, math.inf]),
    ({'below': 1}, [0.999, -HUGE], [1, 2, HUGE, -math.inf]),
    ({'at_most': 1}, [1, -HUGE], [1.001, HUGE, math.nan]),
    ({'above': 0, 'below': 1}, [0.5], [0, 1, -1, 2]),
    ({'at_least': 0, 'at_most': 1}, [0, 0.5, 1], [-0.001, 1.001]),
  ],
)
def test_number_bounds(bounds, good, bad):
  for value in good:
    validate.check_number('privacy.delta', value, **bounds)
  for value in bad:
    with pytest.raises(validate.UsageError) as caught:
      validate.check_number('privacy.delta', value, **bounds)
    message = str(caught.value)
    assert message.startswith('--privacy.delta: expected a finite number')
    for name, bound in bounds.items():
      assert f'{name.replace("_", " ")} {bound}' in message
