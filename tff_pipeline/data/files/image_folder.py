"""Folders of images: FOLDER/CLIENT/LABEL/FILE, or FOLDER/LABEL/FILE.

The names of client folders are user ids, and those of files may be: an error
names a file by its place in the alphabetical order.
"""

import dataclasses
import pathlib
import warnings

import numpy as np
from PIL import Image
from PIL import ImageOps

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data.files import faults
from tff_pipeline.data.files import splitting
from tff_pipeline.data.files import tabular

# Formats whose decoders are widely used, and without scripts or references.
_FORMATS = ('PNG', 'JPEG', 'GIF', 'BMP', 'WEBP')
_SUFFIXES = ('.png', '.jpg', '.jpeg', '.gif', '.bmp', '.webp')
_MAX_PIXELS = 50_000_000
_MAX_FILE_BYTES = 100_000_000
_MODES = {config.ImageMode.GREY: ('L', 1), config.ImageMode.RGB: ('RGB', 3)}


@dataclasses.dataclass(frozen=True)
class _File:
  """One image.

  Attributes:
    path: Never shown.
    label: Name of its label folder.
    client: Number of its client; `None` if the folders have no clients.
    place: Its place in its folder, from 1, for errors.
  """

  path: pathlib.Path
  label: str
  client: int | None
  place: int


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Raises `UsageError` about the folder."""
  del data_dir
  _find(task)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the images; x is uint8[n, size, size, channels].

  Raises:
    UsageError: If a folder holds no images, or a file is none or too large.
  """
  del data_dir
  files = _find(task)
  mode, channels = _MODES[task.image_mode or config.ImageMode.RGB]
  size = task.image_size
  x = np.empty((len(files), size, size, channels), np.uint8)
  for row, file in zip(x, files, strict=True):
    row[:] = _read(file, mode, size).reshape(row.shape)
  labels = sorted({file.label for file in files})
  class_names, codes = tabular.classes(labels)
  places = dict(zip(labels, codes, strict=True))
  y = np.array([places[file.label] for file in files], np.int32)
  owners = None
  if files[0].client is not None:
    owners = np.array([file.client for file in files], np.int64)
  return tabular.assemble(
    lambda rows: client_data.Examples(x[rows], y[rows]),
    owners,
    splitting.held_out(owners, rows=len(files), task=task),
    num_classes=len(class_names),
    preprocessing='scale',
    uncovered=(tabular.CLASSES,),
    class_names=class_names,
    encoding={'classes': list(class_names)},
  )


def _find(task: config.Task) -> list[_File]:
  folder = pathlib.Path(task.path).expanduser()
  if not folder.is_dir():
    raise validate.error('task.path', expected='a folder', found=task.path)
  # Folders with images in them are labels; one level deeper, of clients.
  if any(_images(label) for label in _folders(folder)):
    files = _labelled(folder, client=None)
  else:
    files, clients = [], 0
    for owner in _folders(folder):
      own = _labelled(owner, client=clients)
      clients += bool(own)  # A folder without images is no client.
      files += own
  labels = {file.label for file in files}
  if len(labels) < 2:
    raise validate.error(
      'task.path',
      expected='images of at least two labels as CLIENT/LABEL/FILE or '
      f'LABEL/FILE in {task.path}',
      found=f'{len(files)} images of {len(labels)} labels',
    )
  return files


def _labelled(folder: pathlib.Path, *, client: int | None) -> list[_File]:
  return [
    _File(path, label.name, client, place)
    for label in _folders(folder)
    for place, path in enumerate(_images(label), start=1)
  ]


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    entry
    for entry in folder.iterdir()
    if entry.is_dir() and not entry.name.startswith('.')
  )


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    entry for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES
  )


def _read(file: _File, mode: str, size: int) -> np.ndarray:
  """Returns the pixels of an image; uint8[size, size, ...]."""
  weight = file.path.stat().st_size
  if weight > _MAX_FILE_BYTES:
    raise _refused(file, f'at most {_MAX_FILE_BYTES} bytes', f'{weight} bytes')
  try:
    with warnings.catch_warnings():
      # Pillow warns about large images before it refuses huge ones.
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      with Image.open(file.path, formats=_FORMATS) as image:
        width, height = image.size  # From the header: nothing is decoded yet.
        if width * height > _MAX_PIXELS:
          raise _refused(
            file, f'at most {_MAX_PIXELS} pixels', f'{width} x {height}'
          )
        upright = ImageOps.exif_transpose(image).convert(mode)
        return np.asarray(upright.resize((size, size), Image.BILINEAR))
  except validate.UsageError:
    raise
  except Image.DecompressionBombError:
    raise _refused(file, f'at most {_MAX_PIXELS} pixels', 'far more') from None
  except (OSError, ValueError, SyntaxError):
    # Pillow's messages show the path, which may hold a user id.
    raise _refused(
      file, 'a whole image (' + ', '.join(_FORMATS) + ')', 'something else'
    ) from None


def _refused(file: _File, expected: str, found: str) -> validate.UsageError:
  owner = '' if file.client is None else f' of client {file.client}, from 0'
  return validate.error(
    'task.path',
    expected=f'{expected} in image {file.place} of label '
    f'{faults.shown(file.label)}{owner} (by name)',
    found=found,
  )
