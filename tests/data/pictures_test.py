"""What can be checked of a picture without eyes: ink, sizes, and where."""

import numpy as np
from PIL import Image
import pytest

from tff_pipeline.data import client_data
from tff_pipeline.data import pictures
from tff_pipeline.data import portrait as portraits


def _pixels(path):
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB'), np.int64)


def _ink(path, color=(0x1F, 0x4E, 0x79)):
  """Returns the places with the color of bars; bool[height, width]."""
  return np.abs(_pixels(path) - color).sum(axis=2) < 12


def _portrait(x, y, clients, *, has_tokens=False):
  offsets = np.linspace(0, len(y), clients + 1).astype(np.int64)
  data = client_data.ClientData(client_data.Examples(x, y), offsets)
  return portraits.of(data, num_classes=4, has_tokens=has_tokens)


SIZES = {
  'few clients': np.array([3, 9, 1]),
  'one client': np.array([5]),
  'all equal': np.full(100, 7),
  'some empty': np.arange(100) % 5,
  'skewed': np.round(np.geomspace(1, 5_000, 400)).astype(int),
  'large': np.arange(1_000, 1_500),
}


@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_client_sizes_have_bars(tmp_path, sizes):
  path = pictures.client_sizes(sizes, tmp_path / 'clients.png')
  assert 0.01 < _ink(path).mean() < 0.9


def test_bars_of_few_clients_are_as_high_as_their_sizes(tmp_path):
  path = pictures.client_sizes(np.array([2, 8, 4]), tmp_path / 'clients.png')
  heights = _ink(path).sum(axis=0)
  bars = np.split(heights, np.flatnonzero(np.diff(heights > 0)) + 1)
  found = [np.median(bar) for bar in bars if bar.max() > 20 and len(bar) > 20]
  np.testing.assert_allclose(np.array(found) / found[0], [1, 4, 2], rtol=0.05)


def _blobs(y):
  """Images whose pixels are all 50 times the label, as bytes."""
  return np.repeat(50 * y, 36).reshape(-1, 6, 6, 1).astype(np.uint8)


def test_labels_show_whose_labels_differ(tmp_path):
  apart = np.repeat(np.arange(4, dtype=np.int32), 8)
  alike = np.tile(np.arange(4, dtype=np.int32), 8)
  spread = []
  for y in (apart, alike):
    path = pictures.labels(
      _portrait(_blobs(y), y, 4), 'abcd', tmp_path / 'labels.png'
    )
    pixels = _pixels(path)
    height, width = pixels.shape[:2]
    spread.append(
      pixels[height // 2 : int(0.85 * height), width // 4 : width // 2].std(
        axis=(0, 1)
      )
    )
  assert spread[0].min() > 50 and spread[1].max() < 1


def test_many_labels_and_clients_fit(tmp_path):
  y = np.random.default_rng(0).integers(0, 100, 5_000).astype(np.int32)
  data = client_data.ClientData(
    client_data.Examples(np.zeros((5_000, 2)), y),
    np.arange(0, 5_001, 50),
  )
  portrait = portraits.of(data, num_classes=100, has_tokens=False)
  names = [f'a long name of class {i}' for i in range(100)]
  path = pictures.labels(portrait, names, tmp_path / 'labels.png')
  assert _pixels(path).shape[1] < 2_500


Y = np.arange(12, dtype=np.int32) % 4
EXAMPLES = {
  'grey images': _blobs(Y),
  'colour images': np.repeat(_blobs(Y), 3, axis=3),
  'flat images': np.random.default_rng(0).random((12, 64)),
  'sequences': np.random.default_rng(0).random((12, 100, 6)),
  'features': np.random.default_rng(0).normal(size=(12, 5)),
  'many features': np.random.default_rng(0).normal(size=(12, 500)),
}


@pytest.mark.parametrize('x', EXAMPLES.values(), ids=EXAMPLES)
def test_examples_are_drawn(tmp_path, x):
  path = pictures.examples(
    _portrait(x, Y, 3), 'abcd', tmp_path / 'examples.png'
  )
  pixels = _pixels(path)
  assert pixels.shape[1] < 2_000 and np.mean(pixels < 200) > 0.002


def test_feature_names_take_room(tmp_path):
  portrait = _portrait(EXAMPLES['features'], Y, 3)
  bare = pictures.examples(portrait, (), tmp_path / 'bare.png')
  named = pictures.examples(
    portrait, (), tmp_path / 'named.png', feature_names=['a word'] * 5
  )
  assert np.any(_pixels(bare) != _pixels(named))


def test_tokens_are_no_picture(tmp_path):
  portrait = _portrait(np.ones((12, 5), int), Y, 3, has_tokens=True)
  assert pictures.examples(portrait, (), tmp_path / 'no.png') is None
  assert not list(tmp_path.iterdir())


def test_prices_have_a_line_for_each_noise(tmp_path):
  table = {z: {10: 8 / z, 100: 80 / z} for z in (1.0, 4.0)}
  one = pictures.prices(
    {1.0: table[1.0]}, tmp_path / 'one.png', title='of a test'
  )
  two = pictures.prices(table, tmp_path / 'two.png', title='of a test')
  assert _ink(one).any()
  assert np.mean(_pixels(two) < 200) > 1.1 * np.mean(_pixels(one) < 200)
