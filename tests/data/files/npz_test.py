import io
import pathlib
import tracemalloc
import zipfile

import numpy as np
import psutil
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data.files import npz

_NOWHERE = pathlib.Path('unused')
_N = 40
_RNG = np.random.default_rng(0)
ARRAYS = {
  'x': _RNG.normal(5.0, 2.0, (_N, 3)),
  'label': _RNG.integers(0, 3, _N),
  'who': np.array(['ann', 'bob', 'cy', 'dee'])[np.arange(_N) % 4],
}


def _load(folder, arrays, *, leaves=None):
  path = folder / 'own.npz'
  np.savez(path, **arrays)
  task = config.Task(
    name='npz',
    path=str(path),
    **{'label_column': 'label', 'client_column': 'who', **(leaves or {})},
  )
  npz.prepare(task, data_dir=_NOWHERE)
  return npz.load(task, data_dir=_NOWHERE)


def test_rows_become_clients(tmp_path):
  data = _load(tmp_path, ARRAYS)
  assert data.train.num_clients == 4 and data.class_names == ('0', '1', '2')
  x = data.train.examples.x
  np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(x.std(0), 1, atol=1e-5)


@pytest.mark.parametrize('shape', [(_N, 8, 6), (_N, 8, 6, 3)])
def test_images_of_bytes_stay_bytes(tmp_path, shape):
  images = _RNG.integers(0, 256, shape).astype(np.uint8)
  data = _load(tmp_path, ARRAYS | {'x': images})
  assert data.train.examples.x.dtype == np.uint8
  assert data.train.examples.x.shape[1:] == (8, 6, (*shape, 1)[3])
  assert data.preprocessing == 'scale'
  wanted = {one.tobytes() for one in images}
  assert {one.tobytes() for one in data.train.examples.x} <= wanted


def test_several_arrays_are_joined(tmp_path):
  arrays = ARRAYS | {'z': _RNG.normal(size=(_N, 2, 2)), 'age': np.arange(_N)}
  data = _load(tmp_path, arrays, leaves={'feature_columns': 'z,age'})
  assert data.train.examples.x.shape[1:] == (5,)


def test_sequences_keep_their_shape(tmp_path):
  data = _load(tmp_path, ARRAYS | {'x': _RNG.normal(size=(_N, 10, 6))})
  assert data.train.examples.x.shape[1:] == (10, 6)


def test_by_client_and_pooled(tmp_path):
  data = _load(tmp_path, ARRAYS, leaves={'split': 'by_client'})
  assert data.train.num_clients == 3 and data.client_test is None
  pooled = {'partition': 'iid', 'clients': 2, 'client_column': None}
  data = _load(tmp_path, ARRAYS, leaves=pooled | {'feature_columns': 'x'})
  assert len(data.train) + len(data.test) == _N


def _with_nan():
  x = ARRAYS['x'].copy()
  x[6, 1] = np.nan
  return x


BROKEN = {
  'python objects': ({'x': np.array([{}] * _N)}, 'found Python objects'),
  'ids as objects': (
    {'who': np.array(['a', None] * (_N // 2), object)},
    'array who, found Python objects',
  ),
  'text': ({'x': np.array(['a'] * _N)}, 'expected numbers in .*array x'),
  'too short': ({'x': ARRAYS['x'][:-1]}, 'expected 40 rows.*found 39'),
  'too few ids': ({'who': ARRAYS['who'][1:]}, 'array who, found 39'),
  'one value': ({'x': np.float64(3)}, 'found a single value'),
  'nan': ({'x': _with_nan()}, 'row 7, column x, found infinity or NaN'),
  'many classes': (
    {
      'label': np.arange(1_200),
      'x': np.zeros((1_200, 2)),
      'who': np.array(['a', 'b'] * 600),
    },
    'at most 1000 classes',
  ),
  'one class': ({'label': np.zeros(_N, int)}, 'at least two classes'),
  'rows of labels': ({'label': np.zeros((_N, 2), int)}, 'one value a row'),
}


@pytest.mark.parametrize('changes, said', BROKEN.values(), ids=BROKEN)
def test_refuses(tmp_path, changes, said):
  with pytest.raises(validate.UsageError, match=said) as caught:
    _load(tmp_path, ARRAYS | changes)
  assert 'ann' not in str(caught.value)


class _Bomb:
  def __reduce__(self):
    return (pytest.fail, ('unpickled',))


def test_nothing_is_ever_unpickled(tmp_path):
  with pytest.raises(validate.UsageError, match='found Python objects'):
    _load(tmp_path, ARRAYS | {'x': np.array([_Bomb()] * _N)})


@pytest.mark.parametrize('keep', [0, 30, 700])
def test_damaged_archive_is_refused(tmp_path, keep):
  path = tmp_path / 'own.npz'
  np.savez(path, **ARRAYS)
  path.write_bytes(path.read_bytes()[:keep])
  task = config.Task(name='npz', path=str(path), label_column='label')
  with pytest.raises(validate.UsageError, match='a whole .npz archive'):
    npz.prepare(task, data_dir=_NOWHERE)


def test_single_array_is_no_archive(tmp_path):
  np.save(tmp_path / 'own.npy', ARRAYS['x'])
  task = config.Task(
    name='npz', path=str(tmp_path / 'own.npy'), label_column='label'
  )
  with pytest.raises(validate.UsageError, match='a whole .npz archive'):
    npz.prepare(task, data_dir=_NOWHERE)


def _zip(path, content, **details):
  """Writes an archive of one array, whose directory can be made to lie."""
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header,
    {'descr': '<f8', 'fortran_order': False, 'shape': (len(content) // 8,)},
  )
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.npy', header.getvalue() + content)
    for name, value in details.items():
      setattr(archive.infolist()[0], name, value)


@pytest.mark.parametrize('states', [None, 100], ids=['honest', 'lying'])
def test_archive_of_more_than_the_memory_is_refused(
  tmp_path, monkeypatch, states
):
  path = tmp_path / 'own.npz'
  _zip(path, bytes(16 << 20), **({'file_size': states} if states else {}))
  assert path.stat().st_size < 50_000  # Packed a thousandfold.
  memory = psutil.virtual_memory()._replace(available=1 << 20)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: memory)
  task = config.Task(
    name='npz', path=str(path), label_column='x', feature_columns='x'
  )
  tracemalloc.start()
  with pytest.raises(validate.UsageError) as refused:
    npz.load(task, data_dir=_NOWHERE)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(str(refused.value).splitlines()) == 1
  if states is None:
    assert 'into the 1048576 bytes of free memory' in str(refused.value)
    assert peak < 1 << 20


def test_member_that_is_no_array_is_refused(tmp_path):
  path = tmp_path / 'own.npz'
  np.savez(path, **ARRAYS)
  path.write_bytes(path.read_bytes().replace(b'\x93NUMPY', b'\x93NUMPX'))
  task = config.Task(
    name='npz', path=str(path), label_column='label', feature_columns='x'
  )
  with pytest.raises(validate.UsageError, match='found a damaged one'):
    npz.load(task, data_dir=_NOWHERE)
