"""What a person sees: log lines elsewhere, a bar on a terminal."""

import math
import sys

import pytest

from tff_pipeline.outputs import progress


def _row(*, evaluated, **changes):
  row = {
    'epsilon': 1.234 if evaluated else math.nan,
    'epsilon_rdp': 1.5,
    'unnoised_train_loss': 9.0,
    'test_loss': 0.5678 if evaluated else math.nan,
    'test_accuracy': 0.9 if evaluated else math.nan,
    'clients_per_second': 1234.5,
  }
  return row | changes


@pytest.fixture
def lines(caplog):
  caplog.set_level('INFO')
  return lambda: [record.getMessage() for record in caplog.records]


def test_elsewhere_each_evaluation_is_one_line(lines):
  bar = progress.Progress(first=1, last=4)
  for round_num in (1, 2, 3, 4):
    bar.update(round_num, _row(evaluated=round_num % 2 == 0))
  bar.close()
  first, second = lines()
  start = 'loss=0.568 accuracy=0.900 epsilon=1.24 clients/s=1234 left='
  assert first.startswith(f'round 2/4 {start}00:0')
  assert second == f'round 4/4 {start}00:00'


def test_time_left_counts_this_process_alone(lines, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  bar = progress.Progress(first=11, last=20)
  now[0] += 6.0
  bar.update(12, _row(evaluated=True))
  assert lines()[0].endswith('left=00:24')  # 8 rounds of 3 seconds.


def test_metrics_are_those_of_the_task(lines):
  bar = progress.Progress(first=1, last=1)
  row = _row(evaluated=True, test_perplexity=7.0)
  del row['test_loss'], row['test_accuracy']
  bar.update(1, row)
  assert 'perplexity=7.000' in lines()[0]


def test_infinite_epsilon_is_shown(lines):
  bar = progress.Progress(first=1, last=1)
  bar.update(1, _row(evaluated=True, epsilon=math.inf))
  assert 'epsilon=inf' in lines()[0]


def test_terminal_gets_a_bar_that_starts_where_the_run_does(
  lines, monkeypatch, capsys
):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
  bar = progress.Progress(first=3, last=4)
  bar.update(3, _row(evaluated=True))
  bar.update(4, _row(evaluated=False))
  bar.close()
  shown = capsys.readouterr().err
  assert '2/4' in shown
  assert '4/4' in shown
  # The last evaluation stays visible in rounds without one.
  last = shown.rsplit('\r', 1)[-1]
  assert 'accuracy=0.900' in last
  assert 'epsilon=1.24' in last
  assert lines() == []


def test_extrapolated_epsilon_is_named_so(lines):
  row = _row(evaluated=True)
  row['extrapolated_epsilon'] = row.pop('epsilon')
  progress.Progress(first=1, last=1).update(1, row)
  assert 'extrapolated_epsilon=1.24' in lines()[0]
