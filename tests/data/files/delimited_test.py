import pathlib

import numpy as np
import pandas as pd
import pytest

from tests.data.files import own_data
from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data.files import delimited

_NOWHERE = pathlib.Path('unused')


def load(task):
  return delimited.load(task, data_dir=_NOWHERE)


def _text(tmp_path, text, *, encoding='utf-8'):
  path = tmp_path / 'own.csv'
  path.write_bytes(text.encode(encoding))
  return path


def _task(path, **leaves):
  return config.Task(
    name='csv',
    path=str(path),
    **{'client_column': 'who', 'label_column': 'y', **leaves},
  )


_GOOD = 'who,a,b,y\n' + ''.join(
  f'u{i % 3},{i},{i / 7:.3f},{"no" if i % 2 else "yes"}\n' for i in range(30)
)


def test_rows_become_clients(tmp_path):
  frame = own_data.frame()
  data = load(own_data.task(own_data.csv(tmp_path, frame)))
  assert data.train.num_clients == data.client_test.num_clients == 4
  assert len(data.train.examples) + len(data.test) == len(frame)
  assert data.train.examples.x.dtype == np.float32
  assert data.train.examples.x.shape[1] == 2 + 3  # Two numbers, three cities.
  assert data.class_names == ('no', 'yes') and data.num_classes == 2
  for number, name in enumerate(own_data.NAMES):
    found = np.concatenate(
      [part.client(number)['y'] for part in (data.train, data.client_test)]
    )
    wanted = (frame.bought[frame.user == name] == 'yes').sum()
    assert found.sum() == wanted


def test_same_file_gives_the_same_split(tmp_path):
  task = own_data.task(own_data.csv(tmp_path))
  np.testing.assert_array_equal(load(task).test.x, load(task).test.x)


@pytest.mark.parametrize('mark', [',', ';', '\t'])
@pytest.mark.parametrize('start', ['', '\ufeff'], ids=['plain', 'bom'])
@pytest.mark.parametrize('ending', ['\n', '\r\n'], ids=['unix', 'windows'])
def test_delimiters_byte_order_marks_and_line_ends(
  tmp_path, mark, start, ending
):
  text = start + _GOOD.replace(',', mark).replace('\n', ending)
  data = load(_task(_text(tmp_path, text)))
  plain = load(_task(_text(tmp_path, _GOOD)))
  np.testing.assert_array_equal(data.train.examples.x, plain.train.examples.x)
  np.testing.assert_array_equal(data.test.y, plain.test.y)


def test_quotes_protect_delimiters_and_line_breaks(tmp_path):
  text = 'who,"weight, kg",y\n' + ''.join(
    f'"u,\n{i % 2}",{i},{i % 2}\n' for i in range(20)
  )
  data = load(_task(_text(tmp_path, text), feature_columns='"weight, kg"'))
  assert data.train.num_clients == 2


# Text of a file -> what the error says beside the file's name.
BROKEN = {
  'a word in a number': (
    _GOOD.replace('\nu1,4,', '\nu1,secret,'),
    'row 6, column a, found text of 6 characters',
  ),
  'infinity': (
    _GOOD.replace('\nu1,4,', '\nu1,inf,'),
    'row 6, column a, found ',
  ),
  'empty cell': (
    _GOOD.replace('\nu1,4,', '\nu1,,'),
    'row 6, column a, found an empty cell',
  ),
  'missing word': (
    _GOOD.replace('\nu1,4,', '\nu1, NA ,'),
    'row 6, column a, found an empty cell',
  ),
  'empty user': (_GOOD.replace('\nu1,4,', '\n,4,'), 'row 6, column who'),
  'empty label': (
    _GOOD.replace('4,0.571,yes', '4,0.571,'),
    'row 6, column y, found an empty cell',
  ),
  'cell too many': (_GOOD.replace('\nu1,4,', '\nu1,4,9,'), 'row 6, found 5'),
  'cell too few': (_GOOD.replace('\nu1,4,', '\nu1,'), 'row 6, found 3'),
  'blank line': (_GOOD.replace('\nu1,4,', '\n\nu1,4,'), 'row 6, column who'),
  'no rows': ('who,a,y\n', 'found none'),
  'nothing': ('', 'found nothing in the first row'),
  'column twice': (_GOOD.replace('who,a,b', 'who,a,a'), 'found a twice'),
}


@pytest.mark.parametrize('text, said', BROKEN.values(), ids=BROKEN)
def test_error_names_file_row_and_column_and_shows_no_cell(
  tmp_path, text, said
):
  path = _text(tmp_path, text)
  with pytest.raises(validate.UsageError) as caught:
    load(_task(path))
  message = str(caught.value)
  assert message.startswith('--task.path: expected ') and said in message
  assert str(path) in message or 'twice' in message
  assert 'secret' not in message and 'u1' not in message
  assert caught.value.__cause__ is None  # Arrow's own message shows the row.


def test_row_is_right_far_into_a_large_file(tmp_path):
  rows = [f'u{i % 9},{i},{i % 2}\n' for i in range(700_000)]
  rows[654_321] = 'u1,x,0\n'
  path = _text(tmp_path, 'who,a,y\n' + ''.join(rows))
  assert path.stat().st_size > delimited._BLOCK_BYTES
  with pytest.raises(validate.UsageError, match='row 654323, column a'):
    load(_task(path))
  rows[654_321] = 'u1,3\n'
  path = _text(tmp_path, 'who,a,y\n' + ''.join(rows))
  with pytest.raises(validate.UsageError, match='row 654323, found 2'):
    load(_task(path))


def test_another_encoding_names_the_line(tmp_path):
  text = _GOOD.replace('\nu1,4,', '\nüsür,4,')
  path = _text(tmp_path, text, encoding='latin-1')
  with pytest.raises(validate.UsageError, match='line 6, found another enc'):
    load(_task(path))


@pytest.mark.parametrize(
  'leaves, flag',
  [
    ({'path': 'no_such.csv'}, 'path'),
    ({'path': '.'}, 'path'),
    ({'client_column': 'whom'}, 'client_column'),
    ({'label_column': 'x'}, 'label_column'),
    ({'label_column': 'who'}, 'label_column'),
    ({'feature_columns': 'a,c'}, 'feature_columns'),
    ({'feature_columns': 'a,a'}, 'feature_columns'),
    ({'feature_columns': 'a,y'}, 'feature_columns'),
    ({'feature_columns': 'who,a'}, 'feature_columns'),
    ({'categorical_columns': 'y'}, 'categorical_columns'),
  ],
)
def test_what_the_header_belies_is_refused_before_the_rows(
  tmp_path, leaves, flag
):
  task = _task(**{'path': _text(tmp_path, _GOOD), **leaves})
  with pytest.raises(validate.UsageError, match=f'^--task.{flag}: '):
    delimited.prepare(task, data_dir=_NOWHERE)


def test_missing_rows_are_dropped_where_asked(tmp_path):
  frame = own_data.frame()
  frame.loc[[3, 7], 'age'] = np.nan
  frame.loc[9, 'user'] = ''
  frame.loc[11, 'bought'] = '?'
  path = own_data.csv(tmp_path, frame)
  data = load(own_data.task(path, missing='drop'))
  assert len(data.train.examples) + len(data.test) == len(frame) - 4
  with pytest.raises(validate.UsageError, match='row 11, column user'):
    load(own_data.task(path, missing='fill'))


def test_client_whose_rows_are_all_dropped_is_no_client(tmp_path):
  frame = own_data.frame()
  frame.loc[frame.user == own_data.NAMES[1], 'age'] = np.nan
  path = own_data.csv(tmp_path, frame)
  data = load(own_data.task(path, missing='drop'))
  assert data.train.num_clients == 3 and data.train.client_sizes.min() > 0


def test_pooled_rows_are_dealt_and_keep_the_client_column_out(tmp_path):
  path = own_data.csv(tmp_path)
  task = own_data.task(path, partition='iid', clients=5)
  dealt, _ = tasks.clients(load(task), task=task, seed=0)
  assert dealt.num_clients == 5 and dealt.prototype.x.shape[1] == 5


def test_without_a_client_column_rows_are_pooled(tmp_path):
  frame = own_data.frame().drop(columns='user')
  data = load(
    own_data.task(
      own_data.csv(tmp_path, frame),
      client_column=None,
      partition='iid',
      clients=5,
    )
  )
  assert len(data.train) + len(data.test) == 60


def test_numbers_are_predicted_in_units_of_their_deviation(tmp_path):
  frame = own_data.frame(400)
  task = own_data.task(
    own_data.csv(tmp_path, frame),
    label_column='income',
    target='numbers',
    feature_columns='age',
    categorical_columns=None,
  )
  data = load(task)
  y = data.train.examples.y
  assert data.objective == 'regression' and data.num_classes == 1
  assert y.shape[1:] == (1,) and y.dtype == np.float32
  assert y.mean() == pytest.approx(0, abs=1e-5)
  assert y.std() == pytest.approx(1, abs=1e-5)
  scale = data.encoding['target']
  back = np.concatenate([y, data.test.y]) * scale['stddev'] + scale['mean']
  np.testing.assert_allclose(
    np.sort(back[:, 0]), np.sort(frame.income), rtol=1e-5
  )


def test_ids_are_in_nothing_that_is_written(tmp_path):
  data = load(own_data.task(own_data.csv(tmp_path)))
  written = repr((data.encoding, data.class_names, data.uncovered))
  assert not any(name in written for name in own_data.NAMES)


def test_column_that_stands_for_the_client_must_be_named(tmp_path):
  frame = own_data.frame()
  frame['account'] = frame.user.map(
    {n: i for i, n in enumerate(own_data.NAMES)}
  )
  path = own_data.csv(tmp_path, frame)
  with pytest.raises(validate.UsageError, match='found account, of which eve'):
    load(own_data.task(path))
  named = own_data.task(path, feature_columns='age,account,city')
  assert load(named).train.examples.x.shape[1] == 5


def test_ids_as_categories_are_refused(tmp_path):
  frame = own_data.frame(6_000)
  frame['city'] = [f'town {i}' for i in range(6_000)]
  path = own_data.csv(tmp_path, frame)
  with pytest.raises(validate.UsageError, match='at most 1000 different'):
    load(own_data.task(path))


def test_pandas_agrees_about_the_numbers(tmp_path):
  frame = own_data.frame()
  path = own_data.csv(tmp_path, frame)
  data = load(
    own_data.task(
      path,
      scaling='none',
      feature_columns='income,age',
      categorical_columns=None,
    )
  )
  ours = np.concatenate([data.train.examples.x, data.test.x])
  theirs = pd.read_csv(path)[['income', 'age']].to_numpy(np.float32)
  assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))
