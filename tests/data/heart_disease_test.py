"""The heart disease table from tiny files, whole and damaged."""

import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import heart_disease

_COLUMNS = [
  *('hospital', 'age', 'sex', 'cp', 'trestbps', 'chol', 'fbs', 'restecg'),
  *('thalach', 'exang', 'oldpeak', 'slope', 'ca', 'thal', 'num', 'target'),
]
_TASK = config.Task(name='heart_disease')


def _row(rng, hospital, target):
  row = {
    'hospital': hospital,
    'age': rng.integers(30, 80),
    'trestbps': rng.integers(100, 180),
    'chol': rng.integers(150, 300),
    'thalach': rng.integers(90, 180),
    'oldpeak': round(rng.uniform(0, 4), 1),
    'ca': rng.integers(0, 4),
    'num': 3 * target,
    'target': target,
  }
  row |= {c: rng.choice(codes) for c, codes in heart_disease.CODES.items()}
  return {column: str(row[column]) for column in _COLUMNS}


@pytest.fixture
def rows():
  rng = np.random.default_rng(0)
  return [
    _row(rng, hospital, target)
    for hospital in heart_disease.HOSPITALS
    for target in (0, 1)
    for _ in range(9)
  ]


def _write(folder, rows, columns=_COLUMNS):
  lines = [columns, *([row[c] for c in columns] for row in rows)]
  text = '\n'.join(','.join(line) for line in lines) + '\n'
  (folder / 'heart_disease.csv').write_text(text, encoding='utf-8')


def _load(folder):
  heart_disease.prepare(_TASK, data_dir=folder)
  return heart_disease.load(_TASK, data_dir=folder)


def test_a_third_of_each_hospital_and_label_is_held_out(tmp_path, rows):
  _write(tmp_path, rows)
  data = _load(tmp_path)
  assert data.train.client_sizes.tolist() == [12] * 4
  assert data.client_test.client_sizes.tolist() == [6] * 4
  for part, each in ((data.train, 6), (data.client_test, 3)):
    for hospital in range(4):
      labels = part.client(hospital)['y']
      assert np.bincount(labels).tolist() == [each, each]
  assert data.train.examples.x.dtype == np.float32
  assert data.train.examples.x.shape[1] == heart_disease.NUM_FEATURES
  np.testing.assert_array_equal(data.test.x, data.client_test.examples.x)


def test_split_is_the_same_every_time_and_shares_no_patient(tmp_path, rows):
  rows[1:4] = [rows[0]] * 3  # Records that are equal.
  _write(tmp_path, rows)
  data, again = _load(tmp_path), _load(tmp_path)
  np.testing.assert_array_equal(data.test.x, again.test.x)
  seen = {row.tobytes() for row in data.train.examples.x}
  assert not any(row.tobytes() in seen for row in data.test.x)
  assert len(data.train.examples) + len(data.test) == len(rows)


def test_statistics_are_those_of_the_training_patients(
  tmp_path, rows, monkeypatch
):
  _write(tmp_path, rows)
  numbers = [0, 1, 3, 5, 7, 9]  # Each but the age has an indicator beside it.
  before = _load(tmp_path)
  x = before.train.examples.x[:, numbers]
  np.testing.assert_allclose(x.mean(0), 0.0, atol=1e-6)
  np.testing.assert_allclose(x.std(0), 1.0, rtol=1e-5)
  # Held-out patients can be of any age: the features of the others stay.
  split = heart_disease._split

  def older(patients):
    train, test = split(patients)
    return train, [[p | {'age': 9e3} for p in part] for part in test]

  monkeypatch.setattr(heart_disease, '_split', older)
  after = _load(tmp_path)
  np.testing.assert_array_equal(after.train.examples.x, before.train.examples.x)
  assert after.test.x[:, 0].min() > 100.0
  assert 'deviation' in before.uncovered[0]


def test_features(tmp_path, rows):
  rows[0] |= {'cp': '3', 'thal': '', 'sex': '1', 'fbs': ''}
  rows[0] |= {'chol': '0', 'trestbps': '', 'ca': '', 'target': '0'}
  _write(tmp_path, rows)
  data = _load(tmp_path)
  everyone = np.concatenate([data.train.examples.x, data.test.x])
  (patient,) = [x for x in everyone if x[2] == 1]  # Nobody else misses any.
  # age | trestbps, chol, thalach, oldpeak, ca with "missing" beside each.
  assert patient[[1, 2, 3, 4]].tolist() == [0, 1, 0, 1]
  assert patient[[6, 8, 9, 10]].tolist() == [0, 0, 0, 1]
  # sex 0 1 | cp 1 2 3 4 | fbs 0 1 | ... | thal 3 6 7
  assert patient[11:19].tolist() == [0, 1, 0, 0, 1, 0, 0, 0]
  assert patient[-3:].tolist() == [0, 0, 0]
  assert everyone[:, 11:].sum(1).max() == len(heart_disease.CODES)


def test_columns_may_come_in_any_order_and_number(tmp_path, rows):
  _write(tmp_path, rows)
  x = _load(tmp_path).train.examples.x
  _write(tmp_path, rows, columns=[c for c in reversed(_COLUMNS) if c != 'num'])
  np.testing.assert_array_equal(_load(tmp_path).train.examples.x, x)


def _refusal(folder):
  with pytest.raises(validate.UsageError) as caught:
    _load(folder)
  message = str(caught.value)
  assert message.startswith('--data_dir: expected a whole and unchanged ')
  assert '\n' not in message
  return message


@pytest.mark.parametrize(
  'changes, named',
  [
    ({'age': ''}, 'line 6, column age'),
    ({'target': ''}, 'line 6, column target'),
    ({'target': '2'}, 'line 6, column target'),
    ({'thalach': 'fast'}, "line 6, column thalach: 'fast'"),
    ({'thalach': 'nan'}, 'line 6, column thalach'),
    ({'oldpeak': 'inf'}, 'line 6, column oldpeak'),
    ({'cp': '5'}, 'line 6, column cp'),
    ({'thal': '3.5'}, 'line 6, column thal'),
    ({'hospital': 'basel'}, "line 6, column hospital: 'basel'"),
    ({'target': '1,,"'}, ''),
  ],
)
def test_bad_cell_is_named(tmp_path, rows, changes, named):
  rows[4] |= changes
  _write(tmp_path, rows)
  assert named in _refusal(tmp_path)


@pytest.mark.parametrize('missing', ['hospital', 'age', 'thal', 'target'])
def test_missing_column_is_named(tmp_path, rows, missing):
  _write(tmp_path, rows, columns=[c for c in _COLUMNS if c != missing])
  assert f'no column {missing}' in _refusal(tmp_path)


def test_damaged_files(tmp_path, rows):
  path = tmp_path / 'heart_disease.csv'
  for content in (b'', b'\xff\xfe', b'hospital', b'\0' * 50):
    path.write_bytes(content)
    _refusal(tmp_path)
  _write(tmp_path, rows)
  path.write_bytes(path.read_bytes()[:-40])  # Cut in a row.
  _refusal(tmp_path)
  _write(tmp_path, rows[:-18])
  assert 'its hospitals are not' in _refusal(tmp_path)
