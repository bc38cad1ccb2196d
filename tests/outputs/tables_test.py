"""metrics.csv and TensorBoard: crashes, rewinding, and what they hold."""

import csv
import math
import os
import time

import pytest
from tensorboard.backend.event_processing import event_accumulator
import tensorflow as tf

from tff_pipeline import validate
from tff_pipeline.outputs import tables

_COLUMNS = ['round', 'epsilon', 'unnoised_loss', 'test_accuracy']


def _row(round_num):
  accuracy = math.nan if round_num % 2 else round_num / 10
  # No binary fraction: a row that is written twice must not lose digits.
  return {
    'epsilon': round_num / 3,
    'unnoised_loss': 1e-20 / round_num,
    'test_accuracy': accuracy,
  }


def _write(folder, first, last):
  table = tables.Tables(folder, completed=first - 1)
  for round_num in range(first, last + 1):
    table.write(round_num, _row(round_num))


def _rows(folder):
  with open(folder / 'metrics.csv', newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def _board(folder):
  """Returns tag -> {step: value} of all event files in the folder."""
  events = event_accumulator.EventAccumulator(
    os.fspath(folder / 'tensorboard'), size_guidance={'tensors': 0}
  )
  events.Reload()
  found = {}
  for tag in events.Tags()['tensors']:
    points = events.Tensors(tag)
    steps = [p.step for p in points]
    assert len(steps) == len(set(steps)), f'{tag} has a step twice'
    found[tag] = {
      p.step: float(tf.make_ndarray(p.tensor_proto)) for p in points
    }
  return found


@pytest.fixture
def uninterrupted(tmp_path):
  folder = tmp_path / 'uninterrupted'
  folder.mkdir()
  _write(folder, 1, 5)
  return folder


def test_rows_are_exact_and_in_the_order_of_the_first_one(uninterrupted):
  rows = _rows(uninterrupted)
  assert list(rows[0]) == _COLUMNS
  assert [int(row['round']) for row in rows] == [1, 2, 3, 4, 5]
  for row in rows:
    wanted = _row(int(row.pop('round')))
    found = {name: float(value) for name, value in row.items()}
    assert found == pytest.approx(wanted, rel=0, abs=0, nan_ok=True)


def test_every_row_is_whole_and_synced_when_it_is_written(
  tmp_path, monkeypatch
):
  synced = []
  fsync = os.fsync

  def recorded(descriptor):
    synced.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    fsync(descriptor)

  monkeypatch.setattr(os, 'fsync', recorded)
  table = tables.Tables(tmp_path, completed=0)
  for round_num in (1, 2, 3):
    table.write(round_num, _row(round_num))
    assert len(_rows(tmp_path)) == round_num
    assert synced.count(os.fspath(tmp_path / 'metrics.csv')) == round_num


def test_nothing_is_written_before_the_first_row(tmp_path):
  tables.Tables(tmp_path, completed=0)
  assert not (tmp_path / 'metrics.csv').exists()
  assert tables.recorded_rounds(tmp_path) == 0


@pytest.mark.parametrize('completed', [0, 1, 3, 5])
def test_resume_rewinds_to_the_checkpoint(uninterrupted, tmp_path, completed):
  _write(tmp_path, 1, 4 if completed < 5 else 5)
  _write(tmp_path, completed + 1, 5)
  again = (tmp_path / 'metrics.csv').read_bytes()
  assert again == (uninterrupted / 'metrics.csv').read_bytes()
  assert _board(tmp_path) == _board(uninterrupted)


def test_tensorboard_holds_the_table_without_what_is_undefined(uninterrupted):
  board = _board(uninterrupted)
  assert board.keys() == set(_COLUMNS) - {'round'}
  assert board['test_accuracy'] == pytest.approx({2: 0.2, 4: 0.4})
  assert board['epsilon'] == pytest.approx({r: r / 3 for r in range(1, 6)})


@pytest.mark.parametrize('cut', [1, 3, 12])
def test_last_row_that_a_crash_cut_short_is_dropped(
  uninterrupted, tmp_path, cut
):
  _write(tmp_path, 1, 4)
  path = tmp_path / 'metrics.csv'
  path.write_bytes(path.read_bytes()[:-cut])
  assert tables.recorded_rounds(tmp_path) == 3
  _write(tmp_path, 4, 5)
  assert _rows(tmp_path) == _rows(uninterrupted)


def test_header_that_a_crash_cut_short_is_dropped(tmp_path):
  (tmp_path / 'metrics.csv').write_text('round,epsi')
  assert tables.recorded_rounds(tmp_path) == 0
  _write(tmp_path, 1, 2)
  assert list(_rows(tmp_path)[0]) == _COLUMNS
  assert len(_rows(tmp_path)) == 2


@pytest.mark.parametrize(
  'damage',
  [
    lambda lines: [lines[0], *lines[2:]],
    lambda lines: [lines[0], lines[1], lines[1], *lines[2:]],
    lambda lines: [*lines[:2], 'garbage\n', *lines[3:]],
    lambda lines: [*lines[:2], lines[2].replace('\n', ',7\n'), *lines[3:]],
    lambda lines: lines[1:],
  ],
  ids=['missing', 'twice', 'short', 'long', 'no header'],
)
def test_damaged_table_is_refused(uninterrupted, damage):
  path = uninterrupted / 'metrics.csv'
  before = ''.join(damage(path.read_text().splitlines(keepends=True)))
  path.write_text(before)
  with pytest.raises(validate.UsageError, match='metrics.csv'):
    tables.recorded_rounds(uninterrupted)
  with pytest.raises(validate.UsageError, match='metrics.csv'):
    tables.Tables(uninterrupted, completed=3)
  assert path.read_text() == before


def test_row_with_other_columns_is_a_bug(uninterrupted):
  table = tables.Tables(uninterrupted, completed=5)
  with pytest.raises(ValueError, match='columns'):
    table.write(6, {**_row(6), 'new': 1.0})
  assert len(_rows(uninterrupted)) == 5


def test_row_that_cannot_be_written_leaves_the_others(
  uninterrupted, monkeypatch
):
  before = (uninterrupted / 'metrics.csv').read_bytes()
  table = tables.Tables(uninterrupted, completed=5)

  def full_disk(descriptor):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
      table.write(6, _row(6))
  assert (uninterrupted / 'metrics.csv').read_bytes().startswith(before)
  assert tables.Tables(uninterrupted, completed=5)
  assert (uninterrupted / 'metrics.csv').read_bytes() == before


def test_tensorboard_that_cannot_be_written_is_an_os_error(
  tmp_path, monkeypatch
):
  table = tables.Tables(tmp_path, completed=0)

  class FullDisk:
    def write(self, record):
      raise tf.errors.ResourceExhaustedError(None, None, 'No space left')

  monkeypatch.setattr(table._board, '_writer', FullDisk())
  with pytest.raises(OSError, match='tensorboard/.*: No space left'):
    table.write(1, _row(1))
  assert len(_rows(tmp_path)) == 1


def test_thousands_of_rows_are_written_anew_in_no_time(tmp_path):
  lines = [','.join(map(str, [r, *_row(r).values()])) for r in range(1, 3001)]
  text = '\n'.join([','.join(_COLUMNS), *lines, ''])
  (tmp_path / 'metrics.csv').write_text(text)
  started = time.process_time()
  tables.Tables(tmp_path, completed=3000)
  assert time.process_time() - started < 3.0  # 0.2 s; TensorFlow's writer: 9.
  assert len(_board(tmp_path)['epsilon']) == 3000
