import csv
import io
import math

import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline.report import comparison
from tff_pipeline.report import reading
from tff_pipeline.report import result_tables
from tff_pipeline.report import tables

METRIC = 'test_accuracy'


def _arms(tmp_path, *wanted):
  for i, experiment in enumerate(wanted):
    synthetic_runs.write(tmp_path / f'{i}', experiment, accuracy=0.8)
  return comparison.arms(reading.collect([tmp_path]).runs)


@pytest.fixture(name='noises')
def fixture_noises(tmp_path):
  return _arms(
    tmp_path,
    *(
      synthetic_runs.build(seed=seed, privacy=synthetic_runs.privacy(noise))
      for noise in (0.0, 1.0)
      for seed in (0, 1)
    ),
  )


def _texts(table):
  return [[cell.text for cell in row] for row in table.rows]


def test_results_have_no_accuracy_without_its_epsilon(noises):
  table = result_tables.results(noises, metric=METRIC)
  accuracy = table.columns.index('held-out accuracy')
  assert table.columns[accuracy + 1] == 'ε'
  (none, some) = _texts(table)
  assert none[accuracy : accuracy + 2] == ['0.8000 ± 0.0000', '∞']
  assert float(some[accuracy + 1]) >= noises[1].epsilon
  assert 'user-level, add or remove one, δ = 0.001' in table.caption


def test_other_relations_get_a_column_that_says_so(tmp_path):
  arms = _arms(
    tmp_path,
    synthetic_runs.build(),
    synthetic_runs.build(privacy=synthetic_runs.privacy(relation='zero_out')),
    synthetic_runs.build(privacy=config.no_privacy()),
  )
  for table in (
    result_tables.results(arms, metric=METRIC),
    result_tables.paired(arms, arms[0], metric=METRIC),
    result_tables.to_target(arms, metric=METRIC, target=0.1),
  ):
    assert 'ε is about' in table.columns
    assert 'must not be compared' in table.caption


def test_extrapolated_epsilon_is_labelled_in_every_table(tmp_path):
  privacy = synthetic_runs.privacy(
    population=6000, noise_cohort_size=600, delta=1e-5
  )
  arms = _arms(
    tmp_path,
    synthetic_runs.build(privacy=privacy),
    synthetic_runs.build(privacy=privacy, cohort=config.poisson(5)),
  )
  for table in (
    result_tables.results(arms, metric=METRIC),
    result_tables.paired(arms, arms[0], metric=METRIC),
    result_tables.to_target(arms, metric=METRIC, target=0.1),
    result_tables.runs(arms[0].runs, metric=METRIC),
  ):
    column = table.columns.index('ε')
    assert all('(extrapolated)' in row[column].text for row in table.rows)


def test_trials_are_shown_beside_epsilon(noises):
  table = result_tables.results(noises, metric=METRIC, trials=30)
  assert '30 trials' in table.caption
  assert table.raw['trials'] == [30, 30]


@pytest.mark.parametrize(
  'value, text',
  [(2.7211, '2.73'), (0.0, '0'), (math.inf, '∞'), (math.nan, '–')],
)
def test_epsilon_is_rounded_up_and_infinity_shown(value, text):
  assert tables.epsilon(value, extrapolated=False).text == text


def test_csv_has_numbers_in_full(noises):
  text = tables.to_csv(result_tables.results(noises, metric=METRIC))
  rows = list(csv.DictReader(io.StringIO(text)))
  assert rows[0]['epsilon'] == 'inf'
  assert float(rows[1]['epsilon']) == noises[1].epsilon
  assert rows[1]['relation'] == 'add_or_remove_one'
  assert rows[1]['extrapolated'] == 'False'


def test_markdown_and_latex(noises):
  table = result_tables.results(noises, metric=METRIC)
  markdown = tables.to_markdown(table).splitlines()
  assert markdown[0] == (
    '| noise multiplier | held-out accuracy | ε | seeds | rounds |'
  )
  assert markdown[2] == '| 0 | 0.8000 ± 0.0000 | ∞ | 2 | 6 |'
  latex = tables.to_latex(table)
  assert r'0 & 0.8000 $\pm$ 0.0000 & $\infty$ & 2 & 6 \\' in latex
  assert r'95\%' in latex
  outside_math = latex.split('$')[::2]
  assert not any(set(text) & set('ε∞±δ–−_^') for text in outside_math)


def test_latex_characters_are_escaped():
  cell = tables.Cell('a', r'a_b & 5% {x} \y #1')
  table = tables.Table(
    name='n', title='t', caption='c', columns=('x',), rows=((cell,),), raw={}
  )
  expected = r'a\_b \& 5\% \{x\} \textbackslash{}y \#1 \\'
  assert expected in tables.to_latex(table)
