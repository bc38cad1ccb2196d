"""The round loop with toy callables: order, frequencies, endings."""

import itertools
import math

import numpy as np
import pytest

from tff_pipeline import rounds

_TIMINGS = (
  'round_seconds',
  'evaluate_seconds',
  'price_seconds',
  'whole_seconds',
  'clients_per_second',
  'rss_mb',
)


class _Log:
  """Toy steps that write down what is called; the state counts rounds."""

  def __init__(self, *, stop_after=math.inf, cohort_size=3):
    self.calls = []
    self.rows = {}
    self._stop_after = stop_after
    self._cohort_size = cohort_size

  def steps(self, **changes):
    given = {
      'sample': self._sample,
      'record_attempt': lambda r: self.calls.append(('record', r)),
      'train': self._train,
      'price': self._price,
      'evaluate': self._evaluate,
      'write_row': self._write_row,
      'save': lambda state, r: self.calls.append(('save', r, state)),
      'reached': lambda row: False,
      'stop_requested': lambda: len(self.rows) >= self._stop_after,
    }
    return rounds.Steps(**(given | changes))

  def _sample(self, round_num):
    self.calls.append(('sample', round_num))
    return np.arange(self._cohort_size)

  def _train(self, state, round_num, clients):
    self.calls.append(('train', round_num, state))
    return state + 1, {'unnoised_loss': 1 / round_num}

  def _price(self, round_num, evaluated):
    self.calls.append(('price', round_num, evaluated))
    return {'epsilon': float(round_num) if evaluated else math.nan}

  def _evaluate(self, state):
    self.calls.append(('evaluate', state))
    return {'test_accuracy': state / 10}

  def _write_row(self, round_num, row):
    self.calls.append(('row', round_num))
    self.rows[round_num] = row

  def called(self, name):
    return [call[1] for call in self.calls if call[0] == name]


def _run(
  log, *, first=1, last=6, evaluate_every=2, checkpoint_every=4, **steps
):
  state, round_num = rounds.run(
    first - 1,  # A state that counts rounds.
    first=first,
    last=last,
    evaluate_every=evaluate_every,
    checkpoint_every=checkpoint_every,
    evaluation_columns=('test_accuracy',),
    steps=log.steps(**steps),
  )
  assert state == round_num
  return state


def test_everything_happens_in_order_and_the_attempt_first():
  log = _Log()
  assert _run(log, last=1) == 1
  assert log.calls == [
    ('sample', 1),
    ('record', 1),
    ('train', 1, 0),
    ('evaluate', 1),
    ('price', 1, True),
    ('row', 1),
    ('save', 1, 1),
  ]


def test_state_goes_from_round_to_round():
  log = _Log()
  assert _run(log, first=3, last=6) == 6
  trained = [call for call in log.calls if call[0] == 'train']
  assert trained == [('train', r, r - 1) for r in (3, 4, 5, 6)]


@pytest.mark.parametrize('step', ['train', 'evaluate', 'price', 'write_row'])
def test_whatever_fails_the_attempt_is_recorded_and_nothing_is_saved(step):
  log = _Log()

  def fail(*args):
    raise RuntimeError('crash')

  with pytest.raises(RuntimeError, match='crash'):
    _run(log, last=1, **{step: fail})
  assert log.called('record') == [1]
  assert log.called('save') == []


def test_round_does_not_run_if_its_attempt_cannot_be_recorded():
  log = _Log()

  def full_disk(round_num):
    raise OSError('full')

  with pytest.raises(OSError, match='full'):
    _run(log, record_attempt=full_disk)
  assert log.called('train') == []


_LAST = 7


@pytest.mark.parametrize(
  'every, first', itertools.product([1, 2, 3, 7, 100], [1, 4])
)
def test_evaluations_and_checkpoints_come_when_due_and_at_the_end(every, first):
  log = _Log()
  _run(
    log, first=first, last=_LAST, evaluate_every=every, checkpoint_every=every
  )
  due = [r for r in range(first, _LAST + 1) if r % every == 0 or r == _LAST]
  assert log.called('evaluate') == due  # The state counts rounds.
  assert log.called('save') == due
  priced = [c[1] for c in log.calls if c[0] == 'price' and c[2]]
  assert priced == due


def test_rounds_without_evaluation_have_nan_in_the_same_columns():
  log = _Log()
  _run(log, last=5, evaluate_every=2)
  columns = {tuple(row) for row in log.rows.values()}
  assert columns == {
    (
      'unnoised_cohort_size',
      'epsilon',
      'unnoised_loss',
      'test_accuracy',
      *_TIMINGS,
    )
  }
  accuracies = [row['test_accuracy'] for row in log.rows.values()]
  np.testing.assert_equal(accuracies, [math.nan, 0.2, math.nan, 0.4, 0.5])


def test_row_measures_the_round():
  log = _Log(cohort_size=3)
  _run(log, last=1)
  row = log.rows[1]
  assert row['unnoised_cohort_size'] == 3
  assert row['clients_per_second'] == pytest.approx(3 / row['round_seconds'])
  assert row['rss_mb'] > 1


def test_empty_cohort_is_a_round_like_any_other():
  log = _Log(cohort_size=0)
  assert _run(log, last=2) == 2
  assert [r['unnoised_cohort_size'] for r in log.rows.values()] == [0, 0]
  assert log.rows[1]['clients_per_second'] == 0
  assert log.called('record') == [1, 2]


@pytest.mark.parametrize('stop_after', [1, 2, 4])
def test_stop_request_ends_after_the_round_and_saves_it(stop_after):
  log = _Log(stop_after=stop_after)
  with pytest.raises(rounds.Interrupted) as interrupted:
    _run(log, checkpoint_every=4)
  assert interrupted.value.round_num == stop_after
  assert log.called('train') == list(range(1, stop_after + 1))
  # Once, also where a checkpoint was due anyway.
  assert log.called('save') == [stop_after]
  assert log.calls[-1] == ('save', stop_after, stop_after)


def test_stop_request_in_the_last_round_is_no_interruption():
  log = _Log(stop_after=6)
  assert _run(log, last=6) == 6
  assert log.called('save') == [4, 6]


@pytest.mark.parametrize('stop_after', [2, 99])
def test_a_round_that_reached_the_goal_is_the_last_one(stop_after):
  log = _Log(stop_after=stop_after)
  ended = _run(log, reached=lambda row: row['test_accuracy'] >= 0.2)
  assert ended == 2
  assert log.called('save') == [2]


def test_no_rounds_left_changes_nothing():
  log = _Log()
  assert _run(log, first=7, last=6) == 6
  assert log.calls == []
