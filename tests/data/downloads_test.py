"""Finding and downloading files, from file:// URLs."""

import hashlib
import lzma

import pytest

from tff_pipeline import validate
from tff_pipeline.data import downloads

_CONTENT = bytes(range(256)) * 20_000  # Several chunks.


@pytest.fixture
def served(tmp_path):
  folder = tmp_path / 'served'
  folder.mkdir()

  def serve(content=_CONTENT, name='data.bin'):
    (folder / name).write_bytes(content)
    return (folder / name).as_uri()

  return serve


@pytest.fixture
def data_dir(tmp_path):
  return tmp_path / 'data'


def _names(folder):
  return sorted(p.name for p in folder.rglob('*') if p.is_file())


def _refusal(file, data_dir):
  with pytest.raises(validate.UsageError) as caught:
    downloads.require(file, data_dir)
  message = str(caught.value)
  assert message.startswith('--data_dir: expected ') and '\n' not in message
  return message


def test_downloads_once(served, data_dir):
  file = downloads.File(name='x/data.bin', url=served())
  path = downloads.require(file, data_dir)
  assert path == data_dir / 'x' / 'data.bin'
  assert path.read_bytes() == _CONTENT
  path.write_bytes(b'mine')  # What is there is not fetched again.
  assert downloads.require(file, data_dir).read_bytes() == b'mine'


def test_decompresses_lzma(served, data_dir):
  url = served(lzma.compress(_CONTENT), 'data.sqlite.lzma')
  path = downloads.require(
    downloads.File(name='data.sqlite', url=url), data_dir
  )
  assert path.read_bytes() == _CONTENT
  assert _names(data_dir) == ['data.sqlite']


def test_finds_a_file_in_its_other_places(data_dir):
  file = downloads.File(name='a', url=None, also_at=('datasets/a', 'b'))
  (data_dir / 'datasets').mkdir(parents=True)
  (data_dir / 'b').write_bytes(b'last')
  assert downloads.require(file, data_dir).read_bytes() == b'last'
  (data_dir / 'datasets' / 'a').write_bytes(b'second')
  assert downloads.require(file, data_dir).read_bytes() == b'second'
  (data_dir / 'a').write_bytes(b'first')
  assert downloads.require(file, data_dir).read_bytes() == b'first'


def test_checksum_is_of_what_is_served(served, data_dir):
  digest = hashlib.sha256(_CONTENT).hexdigest()
  file = downloads.File(name='a', url=served(), sha256=digest)
  assert downloads.require(file, data_dir).exists()


@pytest.mark.parametrize('content', [_CONTENT, _CONTENT[:-1], b''])
def test_wrong_checksum_leaves_nothing(served, data_dir, content):
  file = downloads.File(name='a', url=served(content), sha256='0' * 64)
  message = _refusal(file, data_dir)
  assert hashlib.sha256(content).hexdigest() in message
  assert _names(data_dir) == []


@pytest.mark.parametrize(
  'content',
  [
    lzma.compress(_CONTENT)[:-40],
    lzma.compress(_CONTENT)[:10],
    b'',
    b'no lzma at all, but long enough to be one',
  ],
)
def test_damaged_lzma_leaves_nothing(served, data_dir, content):
  file = downloads.File(name='a', url=served(content, 'a.lzma'))
  assert 'the download failed' in _refusal(file, data_dir)
  assert _names(data_dir) == []


def test_offline_says_which_file_goes_where(tmp_path, data_dir):
  url = (tmp_path / 'nowhere.sqlite.lzma').as_uri()
  message = _refusal(downloads.File(name='x.sqlite', url=url), data_dir)
  for part in (url, 'decompressed', str(data_dir / 'x.sqlite'), 'stand_in'):
    assert part in message
  assert _names(data_dir) == []


def test_a_file_that_nobody_serves(data_dir):
  message = _refusal(downloads.File(name='heart.csv', url=None), data_dir)
  assert str(data_dir / 'heart.csv') in message
  assert not data_dir.exists()


def test_interruption_leaves_nothing(served, data_dir, monkeypatch):
  def stop(url):
    yield _CONTENT[:10]
    raise KeyboardInterrupt

  monkeypatch.setattr(downloads, '_chunks', stop)
  with pytest.raises(KeyboardInterrupt):
    downloads.require(downloads.File(name='a', url=served()), data_dir)
  assert _names(data_dir) == []
