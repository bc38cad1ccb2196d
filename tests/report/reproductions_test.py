"""Published figures beside ours: which runs, which figure, which words."""

import dataclasses

import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.report import reading
from tff_pipeline.report import reproduction_sections
from tff_pipeline.report import reproductions

RATE = 'client.learning_rate'
NOISE = 'privacy.noise_multiplier'
DOCUMENTATION = """A title.

Paper:    Somebody. Communication-
          efficient learning. 2017.
Differs:  In nothing.
Run:      python -m experiments.sweep --experiment=x
Takes:    a minute.
"""


def _build(*, rate=0.2, seed=0, noise=1.0):
  return synthetic_runs.build(
    client=config.Client(batch_size=10, learning_rate=rate),
    privacy=synthetic_runs.privacy(noise_multiplier=noise),
    seed=seed,
  )


@pytest.fixture(name='runs')
def fixture_runs(tmp_path):
  """Two rates with two seeds; the curve of a run ends at its accuracy."""
  finals = {
    (0.1, 0): 0.70,
    (0.1, 1): 0.74,
    (0.2, 0): 0.80,
    (0.2, 1): 0.84,
  }
  for (rate, seed), accuracy in finals.items():
    synthetic_runs.write(
      tmp_path / f'rate={rate}' / f'seed={seed}',
      _build(rate=rate, seed=seed),
      accuracy=accuracy,
      columns={'whole_seconds': 30.0},
    )
  return reading.collect([tmp_path]).runs


def _paper(*rows, runs=(), **claim):
  return reproductions.Paper(
    name='x',
    documentation=DOCUMENTATION,
    claim=config.Claim(
      **{'epsilon': 1.0, 'source': 'table 1', 'rows': rows} | claim
    ),
    runs=runs,
  )


def _cells(page, name):
  """Returns the cells of a row of a page."""
  (line,) = [x for x in page.splitlines() if x.startswith(f'| {name}')]
  return [cell.strip() for cell in line.strip('|').split('|')]


def _page(*papers, **earlier):
  return reproductions.page(
    papers, command='this', pictures={}, earlier=earlier
  )


def test_fields_are_read_over_lines_and_hyphens():
  said = reproductions.fields(DOCUMENTATION)
  assert tuple(said) == reproductions.FIELDS
  assert said['Paper'] == ('Somebody. Communication-efficient learning. 2017.')


def test_a_row_is_the_mean_over_seeds_of_its_arm(runs):
  row = config.Row(name='one', arm={RATE: 0.1}, published=0.75, epsilon=3.0)
  cells = _cells(_page(_paper(row, runs=runs)), 'one')
  epsilon = synthetic_runs_epsilon(runs)
  assert cells == [
    'one',
    '0.750',
    '0.720 ± 0.028',
    '3',
    epsilon,
    '6',
    '2',
    '3.0',  # Six rounds of 30 seconds.
  ]


def synthetic_runs_epsilon(runs):
  from tff_pipeline.privacy import statement

  return statement.shown(runs[0].epsilon)


def test_a_tuned_leaf_takes_its_best_value(runs):
  row = config.Row(name='best', published=0.75, tuned=(RATE,))
  assert _cells(_page(_paper(row, runs=runs)), 'best')[2] == (
    '0.820 ± 0.028 (client learning rate 0.2)'
  )


def test_what_is_not_tuned_must_not_differ(runs):
  row = config.Row(name='both', published=0.75)
  with pytest.raises(validate.UsageError, match=f"'both'.*found {RATE}"):
    _page(_paper(row, runs=runs))


def _first_round(run, target):
  rows = run.metrics
  return int(rows[rows.test_accuracy >= target]['round'].iloc[0])


def test_rounds_to_a_target_are_read_off_the_curve(runs):
  row = config.Row(name='target', arm={RATE: 0.2}, target=0.6, published=87)
  mine = [run for run in runs if run.leaves[RATE] == 0.2]
  firsts = [_first_round(run, 0.6) for run in mine]
  cells = _cells(_page(_paper(row, runs=runs)), 'target')
  assert cells[0] == 'target, rounds to 0.6'
  assert cells[1] == '87'
  assert cells[2].startswith(f'{sum(firsts) / 2:.0f} ± ')
  assert max(firsts) > 1


def test_a_target_that_some_or_no_seeds_reach_says_so(runs):
  some = config.Row(name='some', arm={RATE: 0.2}, target=0.83, published=9)
  none = config.Row(name='none', arm={RATE: 0.2}, target=0.9, published=9)
  page = _page(_paper(some, none, runs=runs))
  assert _cells(page, 'some')[2] == '6 (1 of 2 seeds)'
  assert _cells(page, 'none')[2] == 'not in 6; best 0.840'


def test_a_rate_that_more_seeds_reach_is_better_than_a_faster_one(runs):
  row = config.Row(name='faster', target=0.73, published=9, tuned=(RATE,))
  assert (
    'learning rate 0.2' in _cells(_page(_paper(row, runs=runs)), 'faster')[2]
  )


def test_what_was_not_run_says_so(runs, tmp_path):
  other = config.Row(name='other', arm={RATE: 9.0}, published=0.75, epsilon=2.0)
  expected = ['other', '0.750', '*not run here*', '2', '–', '–', '–', '–']
  assert _cells(_page(_paper(other, runs=runs)), 'other') == expected
  page = _page(_paper(other))
  assert _cells(page, 'other') == expected
  assert 'Run on' not in page
  # A run that is going on is no figure.
  synthetic_runs.write(
    tmp_path / 'going', _build(rate=9.0), accuracy=0.9, rounds=3
  )
  going = reading.collect([tmp_path / 'going']).runs
  assert _cells(_page(_paper(other, runs=going)), 'other') == expected


def test_a_section_says_where_its_figures_come_from(runs):
  row = config.Row(name='one', arm={RATE: 0.1}, published=0.75)
  page = _page(_paper(row, runs=runs, difference='Ours is lower, since.'))
  for words in (
    '## x\n\nA title.',
    'Published figures: table 1.',
    'Differs: In nothing.',
    'Run on 2026-11-24: 4 runs, 12 minutes. numpy 1.25.2, python 3.11.',
    'ε: user-level, add or remove one, δ = 0.001.',
    'Ours is lower, since.',
    '`python -m experiments.sweep --experiment=x`',
  ):
    assert words in page


def test_a_section_stays_until_runs_replace_it(runs, tmp_path):
  row = config.Row(name='one', arm={RATE: 0.1})
  page = _page(_paper(row, runs=runs))
  earlier = reproduction_sections.split(page)
  assert list(earlier) == ['x']
  assert _page(_paper(row), **earlier) == page
  synthetic_runs.write(
    tmp_path / 'going', _build(rate=0.1), accuracy=0.9, rounds=3
  )
  going = reading.collect([tmp_path / 'going']).runs
  assert _page(_paper(row, runs=going), **earlier) == page
  assert _page(_paper(row, runs=runs[:1]), **earlier) != page


def test_a_section_without_runs_says_what_the_file_says_now(runs):
  old, new = config.Row(name='old'), config.Row(name='new')
  earlier = reproduction_sections.split(_page(_paper(old)))
  assert '| old |' in earlier['x']
  assert _page(_paper(new), **earlier) == _page(_paper(new))


def test_no_mechanism_is_infinite_and_about_nothing(tmp_path):
  synthetic_runs.write(
    tmp_path / 'run',
    dataclasses.replace(synthetic_runs.build(), privacy=config.no_privacy()),
    accuracy=0.9,
  )
  runs = reading.collect([tmp_path / 'run']).runs
  page = _page(_paper(config.Row(name='open'), runs=runs))
  cells = _cells(page, 'open')
  assert cells[1] == '–' and cells[4] == '∞' and cells[7] == 'nan'
  assert 'ε: ' not in page


def test_epsilons_of_two_relations_say_so(tmp_path):
  for name, relation in (('a', 'add_or_remove_one'), ('b', 'zero_out')):
    wanted = dataclasses.replace(
      synthetic_runs.build(),
      cohort=config.full(),
      privacy=synthetic_runs.privacy(relation=relation),
    )
    synthetic_runs.write(tmp_path / name, wanted)
  runs = reading.collect([tmp_path]).runs
  rows = [
    config.Row(name=f'row {r}', arm={'privacy.relation': r})
    for r in ('add_or_remove_one', 'zero_out')
  ]
  page = _page(_paper(*rows, runs=runs))
  assert _cells(page, 'row add')[4].endswith('(add or remove one)')
  assert _cells(page, 'row zero')[4].endswith('(zero out)')
  alone = _page(_paper(rows[0], runs=runs))
  assert '(add' not in _cells(alone, 'row add')[4]
