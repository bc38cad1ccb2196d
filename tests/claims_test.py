"""Claims of experiment files: what a row of a paper may say."""

import math

import pytest

from tff_pipeline import config
from tff_pipeline import validate


def test_row_is_an_accuracy_or_a_number_of_rounds():
  assert config.Row(name='a', published=0.97).target is None
  assert config.Row(name='b', target=0.97, published=87).published == 87
  assert config.Row(name='c').published is None


@pytest.mark.parametrize(
  'leaves',
  [
    {'published': 97.0},  # Percents would stand beside shares.
    {'published': 0.0},
    {'target': 97.0},
    {'target': 0.97, 'published': 0.97},
  ],
)
def test_row_that_mixes_them_up_is_refused(leaves):
  with pytest.raises(validate.UsageError, match='expected a finite number'):
    config.Row(name='a', **leaves)


def test_claim_may_be_infinite_but_not_undefined():
  assert config.Claim(epsilon=math.inf, source='x').rows == ()
  for epsilon in (math.nan, -1.0):
    with pytest.raises(validate.UsageError, match='--epsilon'):
      config.Claim(epsilon=epsilon, source='x')


def test_claim_without_source_or_with_one_row_twice_is_refused():
  with pytest.raises(validate.UsageError, match='--source'):
    config.Claim(epsilon=1.0, source='')
  rows = (config.Row(name='a'), config.Row(name='a'))
  with pytest.raises(validate.UsageError, match='--rows: .* found a'):
    config.Claim(epsilon=1.0, source='x', rows=rows)
