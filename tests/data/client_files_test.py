"""Data sets in TFF's SQLite format from tiny files, against TFF's readers."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.simulation.baselines.shakespeare import (
  char_prediction_preprocessing,
)
from tensorflow_federated.python.simulation.baselines.stackoverflow import (
  tag_prediction_preprocessing,
)
from tensorflow_federated.python.simulation.baselines.stackoverflow import (
  word_prediction_preprocessing,
)

from tests import tiny_files
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import cifar100
from tff_pipeline.data import emnist
from tff_pipeline.data import shakespeare
from tff_pipeline.data import stackoverflow
from tff_pipeline.data import stackoverflow_tags
from tff_pipeline.data import stackoverflow_words
from tff_pipeline.data import streamed
from tff_pipeline.models import preprocessing

_RNG = np.random.default_rng(0)
_UNORDERED = {'shuffle_buffer_size': 1, 'num_epochs': 1}


def _image():
  grey = _RNG.integers(0, 256, (28, 28))
  return {'pixels': np.float32(grey / 255), 'label': _RNG.integers(0, 10)}


def _colours():
  image = _RNG.integers(0, 256, (32, 32, 3))
  coarse, label = _RNG.integers(0, [20, 100])
  return {'image': image, 'label': label, 'coarse_label': coarse}


def _speech():
  letters = list('The quick "brown" fox;\njumps & [over] {the} lazy dog~\xe9')
  speech = ''.join(_RNG.choice(letters, _RNG.integers(0, 200)))
  return {'snippets': speech.encode()}


_WORDS = [f'word{i}' for i in range(stackoverflow.NUM_WORDS + 5)]
_TAGS = [f'tag{i}' for i in range(stackoverflow.NUM_TAGS + 5)]


def _post():
  def some(known, least, most):
    spelled = [*known, 'unheard', 'of']
    size = _RNG.integers(least, most)
    picked = np.minimum(_RNG.geometric(0.02, size) - 1, len(spelled) - 1)
    return [spelled[i if _RNG.random() < 0.8 else -1] for i in picked]

  return {
    'creation_date': b'',
    'score': 1,
    'type': b'question',
    'title': ' '.join(some(_WORDS, 1, 5)).encode(),
    'tokens': ' '.join(some(_WORDS, 0, 40)).encode(),
    'tags': '|'.join(sorted(set(some(_TAGS, 1, 5)))).encode(),
  }


def _clients(theirs, names):
  """Yields TFF's examples of each client, stacked."""
  for name in names:
    data = theirs.create_tf_dataset_for_client(name)
    yield next(iter(data.batch(1000))) if len(list(data)) else None


def _load(module, folder, **leaves):
  return module.load(config.Task(**leaves), data_dir=folder)


@pytest.mark.parametrize('only_digits', [True, False])
def test_emnist_is_what_tff_reads(tmp_path, only_digits):
  path = tmp_path / 'emnist_all.sqlite'
  prefixes = ('digits_only_', 'all_')
  splits = [tiny_files.splits(_image, prefix) for prefix in prefixes]
  tiny_files.sqlite(path, splits[0] | splits[1])
  name = 'emnist_digits' if only_digits else 'emnist_characters'
  ours = _load(emnist, tmp_path, name=name)
  theirs = tff.simulation.datasets.emnist.load_data(only_digits, tmp_path)
  assert ours.train.client_sizes.tolist() == [2, 3, 1]
  assert ours.client_test.client_sizes.tolist() == [0, 2, 1]
  for part, data in zip((ours.train, ours.client_test), theirs, strict=True):
    names = ['a', 'b', 'c'] if part is ours.train else ['b', 'c']
    first = 3 - len(names)
    for index, batch in enumerate(_clients(data, names), first):
      found = part.client(index)
      np.testing.assert_array_equal(
        found['x'][..., 0], np.rint(batch['pixels'] * 255)
      )
      np.testing.assert_array_equal(found['y'], batch['label'])
  np.testing.assert_array_equal(ours.test.x, ours.client_test.examples.x)
  assert ours.train.examples.x.dtype == np.uint8
  assert ours.num_classes == (10 if only_digits else 62)


@pytest.mark.parametrize('towards', [0.0, 1.0])
def test_pixels_may_be_off_by_a_rounding(tmp_path, towards):
  splits = tiny_files.splits(_image, 'digits_only_')
  grey = np.arange(784).reshape(28, 28) % 256
  inexact = np.nextafter(np.float32(grey / 255), np.float32(towards))
  splits['digits_only_train']['a'][0]['pixels'] = inexact
  tiny_files.sqlite(tmp_path / 'emnist_all.sqlite', splits)
  data = _load(emnist, tmp_path, name='emnist_digits')
  np.testing.assert_array_equal(data.train.client(0)['x'][0, ..., 0], grey)


def test_cifar100_is_what_tff_reads(tmp_path):
  tiny_files.sqlite(tmp_path / 'cifar100.sqlite', tiny_files.splits(_colours))
  ours = _load(cifar100, tmp_path, name='cifar100')
  theirs, _ = tff.simulation.datasets.cifar100.load_data(tmp_path)
  for index, batch in enumerate(_clients(theirs, theirs.client_ids)):
    found = ours.train.client(index)
    np.testing.assert_array_equal(found['x'], batch['image'])
    np.testing.assert_array_equal(found['y'], batch['label'])
  assert len(ours.test) == 3 and ours.client_test is None


def test_shakespeare_is_what_tff_makes_of_it(tmp_path):
  splits = tiny_files.splits(_speech)
  lengths = [0, 77, 78, 79, 80, 81, 159, 160, 161, 240]
  splits['train']['d'] = [{'snippets': b'a' * size} for size in lengths]
  tiny_files.sqlite(tmp_path / 'shakespeare.sqlite', splits)
  ours = _load(shakespeare, tmp_path, name='shakespeare')
  theirs = tff.simulation.datasets.shakespeare.load_data(tmp_path)
  preprocess = char_prediction_preprocessing.create_preprocess_fn(
    tff.simulation.baselines.ClientSpec(batch_size=1000, **_UNORDERED)
  )
  for part, data in zip((ours.train, ours.client_test), theirs, strict=True):
    for name in data.client_ids:
      x, y = next(iter(preprocess(data.create_tf_dataset_for_client(name))))
      found = part.client('abcd'.index(name))
      np.testing.assert_array_equal(found['x'], x)
      np.testing.assert_array_equal(found['y'], y)
  special = char_prediction_preprocessing.get_special_tokens()
  assert special == (
    shakespeare.PAD,
    shakespeare.OOV,
    shakespeare.BOS,
    shakespeare.EOS,
  )
  assert ours.num_classes == 90 and ours.ignored_labels == (shakespeare.OOV,)


@pytest.fixture
def posts(tmp_path):
  tiny_files.sqlite(tmp_path / 'stackoverflow.sqlite', tiny_files.splits(_post))
  tiny_files.vocabularies(tmp_path, _WORDS, _TAGS)
  return tmp_path


def _their_posts(folder, name):
  path = str(folder / 'stackoverflow.sqlite')
  data = tff.simulation.datasets.SqlClientData(path, 'train')
  return data.preprocess(_parse_posts).create_tf_dataset_for_client(name)


def _parse_posts(dataset):
  names = ('creation_date', 'tags', 'title', 'tokens', 'type')
  spec = {name: tf.io.FixedLenFeature((), tf.string) for name in names}
  spec['score'] = tf.io.FixedLenFeature((), tf.int64)
  return dataset.map(lambda row: tf.io.parse_single_example(row, spec))


def test_words_are_what_tff_makes_of_them(posts):
  ours = _load(
    stackoverflow_words, posts, name='stackoverflow_words', max_clients=3
  )
  preprocess = word_prediction_preprocessing.create_preprocess_fn(
    tff.simulation.baselines.ClientSpec(batch_size=1000, **_UNORDERED),
    vocab=_WORDS[: stackoverflow.NUM_WORDS],
  )
  for index, name in enumerate('abc'):
    x, y = next(iter(preprocess(_their_posts(posts, name))))
    found = ours.train.client(index)
    np.testing.assert_array_equal(found['x'], x)
    np.testing.assert_array_equal(found['y'], y)
  special = word_prediction_preprocessing.get_special_tokens(10_000)
  assert (special.padding, *special.out_of_vocab) == (0, 10_001)
  assert ours.ignored_labels == (10_001,) and ours.num_classes == 10_004
  assert len(ours.test) == 3


def test_tags_are_what_tff_makes_of_them(posts):
  ours = _load(
    stackoverflow_tags, posts, name='stackoverflow_tags', max_clients=3
  )
  preprocess = tag_prediction_preprocessing.create_preprocess_fn(
    tff.simulation.baselines.ClientSpec(batch_size=1000, **_UNORDERED),
    word_vocab=_WORDS[: stackoverflow.NUM_WORDS],
    tag_vocab=_TAGS[: stackoverflow.NUM_TAGS],
  )
  bag = preprocessing.BagOfWords(stackoverflow.NUM_WORDS)
  for index, name in enumerate('abc'):
    x, y = next(iter(preprocess(_their_posts(posts, name))))
    found = ours.train.client(index)
    np.testing.assert_allclose(bag(found['x']), x, rtol=1e-6)
    np.testing.assert_array_equal(found['y'], y)


@pytest.mark.parametrize('module', [stackoverflow_words, stackoverflow_tags])
@pytest.mark.parametrize('limit', [None, 1])
def test_all_of_stackoverflow_is_streamed(posts, module, limit):
  name = module.__name__.rpartition('.')[-1]
  loaded, ours = (
    _load(
      module, posts, name=name, max_clients=most, max_client_examples=limit
    ).train
    for most in (3, None)
  )
  assert isinstance(ours, streamed.StreamedClients)
  assert ours.num_clients == loaded.num_clients == 3
  for index in range(3):
    for key in 'xy':
      wanted = loaded.client(index)[key][:limit]
      np.testing.assert_array_equal(ours.client(index)[key], wanted)
      assert ours.prototype.x.dtype == wanted.dtype or key == 'y'


def test_all_of_stackoverflow_is_not_dealt_anew(tmp_path):
  task = config.Task(name='stackoverflow_words', partition='iid', clients=3)
  with pytest.raises(validate.UsageError, match='^--task.max_clients: '):
    stackoverflow_words.prepare(task, data_dir=tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'name, content',
  [
    ('word', b''),
    ('word', tiny_files.tar({'other': b'a 1\n'}, mode='w:bz2')),
    ('word', tiny_files.tar({'stackoverflow.word_count': b'a'}, mode='w:bz2')),
    (
      'word',
      tiny_files.tar({'stackoverflow.word_count': b'a 1\n'}, mode='w:bz2'),
    ),
    ('tag', tiny_files.tar({'stackoverflow.tag_count': b'{'}, mode='w:bz2')),
    ('tag', tiny_files.tar({'stackoverflow.tag_count': b'[1]'}, mode='w:bz2')),
    (
      'tag',
      tiny_files.tar({'stackoverflow.tag_count': b'{"a": "b"}'}, mode='w:bz2'),
    ),
    ('tag', tiny_files.tar({'stackoverflow.tag_count': b'\xff'}, mode='w:bz2')),
  ],
)
def test_damaged_vocabulary(tmp_path, name, content):
  path = tmp_path / 'counts.tar.bz2'
  path.write_bytes(content)
  read = {
    'word': stackoverflow.most_frequent_words,
    'tag': stackoverflow.most_frequent_tags,
  }[name]
  with pytest.raises(validate.UsageError, match='^--data_dir: ') as caught:
    read(path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'module, name, example, named',
  [
    (emnist, 'emnist_digits', {'label': 10}, 'labels from'),
    (emnist, 'emnist_digits', {'label': -1}, 'labels from'),
    (
      emnist,
      'emnist_digits',
      {'pixels': np.full((28, 28), 0.5013, np.float32)},
      '256 steps',
    ),
    (
      emnist,
      'emnist_digits',
      {'pixels': np.full((28, 28), 2.0, np.float32)},
      '256 steps',
    ),
    (
      emnist,
      'emnist_digits',
      {'pixels': np.full((28, 28), np.nan, np.float32)},
      '256 steps',
    ),
    (
      emnist,
      'emnist_digits',
      {'pixels': np.zeros((28, 27), np.float32)},
      'an example',
    ),
    (cifar100, 'cifar100', {'label': 100}, 'labels from'),
    (cifar100, 'cifar100', {'image': np.full((32, 32, 3), 256)}, '0 to 255'),
  ],
)
def test_example_of_another_kind(tmp_path, module, name, example, named):
  make = {emnist: _image, cifar100: _colours}[module]
  prefix = 'digits_only_' if module is emnist else ''
  splits = tiny_files.splits(make, prefix)
  splits[f'{prefix}train']['a'][0] |= example
  tiny_files.sqlite(tmp_path / module.FILE.name, splits)
  with pytest.raises(validate.UsageError, match='^--data_dir: ') as caught:
    _load(module, tmp_path, name=name)
  assert named in str(caught.value) and '\n' not in str(caught.value)
