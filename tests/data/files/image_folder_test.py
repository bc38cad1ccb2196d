import pathlib
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data.files import image_folder

_NOWHERE = pathlib.Path('unused')


def _folder(root, *, clients=('ann', 'bob', 'cy'), images=5):
  rng = np.random.default_rng(0)
  for client in clients:
    for label, level in (('dark', 40), ('light', 210)):
      own = root / client / label
      own.mkdir(parents=True)
      for i in range(images):
        pixels = rng.integers(level - 30, level + 30, (9 + i, 12, 3))
        suffix = ('png', 'jpg', 'bmp')[i % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(own / f'{i}.{suffix}')
  return root


def _load(folder, **leaves):
  task = config.Task(
    name='image_folder', path=str(folder), **{'image_size': 8, **leaves}
  )
  image_folder.prepare(task, data_dir=_NOWHERE)
  return image_folder.load(task, data_dir=_NOWHERE)


def test_folders_become_clients_and_labels(tmp_path):
  data = _load(_folder(tmp_path))
  assert data.train.num_clients == 3
  assert len(data.train.examples) + len(data.test) == 30
  assert data.class_names == ('dark', 'light')
  x, y = data.train.examples.x, data.train.examples.y
  assert x.shape[1:] == (8, 8, 3) and x.dtype == np.uint8
  assert x[y == 0].max() < 90 < 160 < x[y == 1].min()


@pytest.mark.parametrize('mode, channels', [('grey', 1), ('rgb', 3)])
def test_channels(tmp_path, mode, channels):
  data = _load(_folder(tmp_path), image_mode=mode)
  assert data.train.examples.x.shape[3] == channels


def test_pooled_folder_has_labels_first(tmp_path):
  folder = _folder(tmp_path) / 'ann'
  data = _load(folder, partition='iid', clients=2)
  assert len(data.train) + len(data.test) == 10


def test_client_without_images_is_no_client(tmp_path):
  folder = _folder(tmp_path)
  (folder / 'aaa' / 'dark').mkdir(parents=True)
  (folder / '.hidden').mkdir()
  assert _load(folder).train.num_clients == 3


def _png_of(width, height):
  """A tiny file whose header promises a huge image."""

  def chunk(kind, body):
    checksum = zlib.crc32(kind + body)
    return (
      struct.pack('>I', len(body)) + kind + body + struct.pack('>I', checksum)
    )

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  data = zlib.compress(bytes(1000))
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', data)
    + chunk(b'IEND', b'')
  )


BROKEN = {
  'bomb': (_png_of(9_000, 9_000), 'at most 50000000 pixels', '9000 x 9000'),
  'larger bomb': (
    _png_of(60_000, 60_000),
    'at most 50000000 pixels',
    'far mor',
  ),
  'truncated': (_png_of(30, 30), 'a whole image', 'something else'),
  'text': (b'hello', 'a whole image', 'something else'),
  'nothing': (b'', 'a whole image', 'something else'),
  'postscript': (b'%!PS-Adobe-3.0 EPSF-3.0\n', 'a whole image', 'something'),
}


@pytest.mark.parametrize(
  'content, expected, found', BROKEN.values(), ids=BROKEN
)
def test_bad_image_is_refused_without_its_name(
  tmp_path, content, expected, found
):
  folder = _folder(tmp_path)
  (folder / 'bob' / 'light' / '00_private.png').write_bytes(content)
  with pytest.raises(validate.UsageError) as caught:
    _load(folder)
  message = str(caught.value)
  assert f'expected {expected}' in message and f'found {found}' in message
  assert 'image 2 of label light of client 1' in message
  assert 'bob' not in message and 'private' not in message
  assert caught.value.__cause__ is None


def test_large_file_is_not_opened(tmp_path, monkeypatch):
  monkeypatch.setattr(image_folder, '_MAX_FILE_BYTES', 10)
  with pytest.raises(validate.UsageError, match='at most 10 bytes'):
    _load(_folder(tmp_path))


def test_other_layouts_are_refused(tmp_path):
  (tmp_path / 'one').mkdir()
  with pytest.raises(validate.UsageError, match='LABEL/FILE'):
    _load(tmp_path)


def test_photos_are_turned_upright(tmp_path):
  folder = _folder(tmp_path)
  pixels = np.zeros((16, 16, 3), np.uint8)
  pixels[:8] = 255  # The upper half is white as stored.
  image = Image.fromarray(pixels)
  exif = image.getexif()
  exif[0x0112] = 3  # Taken upside down.
  image.save(folder / 'ann' / 'dark' / 'photo.png', exif=exif)
  data = _load(folder, test_share=0.01, split='by_client')
  both = np.concatenate([data.train.examples.x, data.test.x])
  lower_white = (both[:, 5:].min((1, 2, 3)) > 250) & (
    both[:, :3].max((1, 2, 3)) < 5
  )
  assert lower_white.sum() == 1
