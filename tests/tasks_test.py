"""A table over all tasks, on their stand-ins."""

import dataclasses
import json
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_files
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.models import functional

_POOLED = {'partition': 'iid', 'clients': 20}
_GREY, _COLOUR = ((28, 28, 1), 'uint8'), ((32, 32, 3), 'uint8')
_LABEL = ((), 'int32')
# Task -> leaves that it needs, shape and dtype of x and of y, logits.
TABLE = {
  'cifar10': (_POOLED, _COLOUR, _LABEL, (10,)),
  'cifar100': ({}, _COLOUR, _LABEL, (100,)),
  'digits': (_POOLED, ((64,), 'float32'), _LABEL, (10,)),
  'emnist_characters': ({}, _GREY, _LABEL, (62,)),
  'emnist_digits': ({}, _GREY, _LABEL, (10,)),
  'fashion_mnist': (_POOLED, _GREY, _LABEL, (10,)),
  'har': ({}, ((100, 6), 'float32'), _LABEL, (7,)),
  'heart_disease': ({}, ((30,), 'float32'), _LABEL, (2,)),
  'mnist': (_POOLED, _GREY, _LABEL, (10,)),
  'shakespeare': ({}, ((80,), 'uint8'), ((80,), 'uint8'), (80, 90)),
  'stackoverflow_tags': ({}, ((500,), 'int16'), ((500,), 'uint8'), (500,)),
  'stackoverflow_words': (
    {},
    ((20,), 'int16'),
    ((20,), 'int16'),
    (20, 10_004),
  ),
  'synthetic': (
    {'labelling': 'own', 'alpha': 1.0, 'beta': 1.0},
    ((60,), 'float32'),
    _LABEL,
    (10,),
  ),
}
each_task = pytest.mark.parametrize('name', TABLE)
each_model = pytest.mark.parametrize(
  'name, model',
  [(name, model) for name in TABLE for model in tasks.TASKS[name].models],
)
# Whose rounds take a second or two; the others are marked slow.
_QUICK = {'digits', 'har', 'heart_disease', 'synthetic'}


def _task(name, **leaves):
  return config.Task(name=name, source='stand_in', **TABLE[name][0], **leaves)


def _rows(examples):
  return [
    x.tobytes() + y.tobytes()
    for x, y in zip(examples.x, examples.y, strict=True)
  ]


def test_table_has_every_standard_task():
  own = {
    name
    for name, entry in tasks.TASKS.items()
    if not (entry.models and name in TABLE)
  }
  assert own <= {'csv', 'parquet', 'npz', 'image_folder', 'tff_sqlite'}


@each_task
def test_stand_in(name, caplog):
  _, x, y, _ = TABLE[name]
  with caplog.at_level(logging.WARNING, 'tff_pipeline'):
    task = tasks.build(_task(name), seed=0)
  for part in (task.train.examples, task.test):
    assert (part.x.shape[1:], part.x.dtype) == x
    assert (part.y.shape[1:], part.y.dtype) == y
  assert task.input_spec['x'] == tf.TensorSpec((None, *x[0]), x[1])
  assert task.train.num_clients > 1 and task.train.client_sizes.min() > 0
  assert task.label == 'synthetic stand-in'
  assert f'The data of {name} is a synthetic stand-in.' in caplog.text


@each_task
def test_train_and_test_are_disjoint_and_the_same_every_time(name):
  task, again = (tasks.build(_task(name), seed=0) for _ in range(2))
  np.testing.assert_array_equal(task.train.examples.x, again.train.examples.x)
  np.testing.assert_array_equal(task.test.x, again.test.x)
  assert not set(_rows(task.train.examples)) & set(_rows(task.test))


@each_task
def test_clients_of_the_test_data_are_those_of_the_training_data(name):
  task = tasks.build(_task(name), seed=0)
  if task.client_test is not None:
    assert task.client_test.num_clients == task.train.num_clients
    assert _rows(task.client_test.examples) == _rows(task.test)


@each_model
def test_model_takes_a_batch(name, model):
  task = tasks.build(_task(name, model=model), seed=0)
  built = functional.keras_model(task.model_factory, seed=0)
  batch = task.train.client(0)
  x, y = batch['x'][:2], batch['y'][:2]
  output = built(x)
  logits = TABLE[name][3]
  if model == 'autoencoder':
    logits = (784,)
  assert output.shape == (len(x), *logits)
  loss = float(task.loss_factory()(y, output))
  assert math.isfinite(loss) and loss > 0.0
  for metric in task.metric_factory().values():
    metric.update_state(y, output)
    assert 0.0 <= float(metric.result()) <= 1.0


def test_autoencoder_gives_back_bright_strokes():
  plain = tasks.build(_task('emnist_digits', model='cnn'), seed=0)
  own = tasks.build(_task('emnist_digits', model='autoencoder'), seed=0)
  np.testing.assert_array_equal(
    own.train.examples.x, 255 - plain.train.examples.x
  )
  for part in (own.train.examples, own.test, own.client_test.examples):
    np.testing.assert_array_equal(part.y, part.x.reshape(len(part), -1))
  assert own.metric_factory().keys() == {'root_mean_squared_error'}


@pytest.mark.parametrize('name', [n for n in TABLE if not TABLE[n][0]])
def test_natural_clients_are_kept_unless_another_partition_is_asked_for(name):
  natural = tasks.build(_task(name), seed=0)
  dealt = tasks.build(_task(name, partition='iid', clients=7), seed=0)
  assert natural.train.num_clients != 7 == dealt.train.num_clients
  assert sorted(_rows(natural.train.examples)) == sorted(
    _rows(dealt.train.examples)
  )
  assert dealt.client_test is None
  np.testing.assert_array_equal(natural.test.x, dealt.test.x)


def test_only_the_first_clients_and_examples_are_kept():
  whole = tasks.build(_task('har'), seed=0)
  few = tasks.build(_task('har', max_clients=3, max_client_examples=4), seed=0)
  assert few.train.num_clients == few.client_test.num_clients == 3
  assert few.train.client_sizes.max() == 4
  for index in range(3):
    np.testing.assert_array_equal(
      few.train.client(index)['x'], whole.train.client(index)['x'][:4]
    )


def test_sequences_have_no_label_to_skew():
  leaves = {'partition': 'dirichlet', 'clients': 5, 'concentration': 1.0}
  with pytest.raises(validate.UsageError, match='^--task.partition: '):
    tasks.build(_task('shakespeare', **leaves), seed=0)


def takes_a_vocabulary(*, input_shape, num_classes, vocabulary_size):
  assert (input_shape, num_classes, vocabulary_size) == ((20,), 10_004, 10_004)
  return tf.keras.Sequential(
    [
      tf.keras.Input(input_shape, dtype='int32'),
      tf.keras.layers.Embedding(vocabulary_size, 2),
      tf.keras.layers.Dense(num_classes),
    ]
  )


def test_own_factory_gets_what_it_names():
  own = f'{__name__}:takes_a_vocabulary'
  sys.modules.setdefault(__name__, sys.modules[takes_a_vocabulary.__module__])
  task = tasks.build(_task('stackoverflow_words', model=own), seed=0)
  assert task.model_factory().count_params() == 10_004 * 5


def _experiment(name, **task):
  return config.Experiment(
    task=_task(name, **task),
    cohort=config.fixed_size(2),
    client=config.Client(batch_size=4, learning_rate=0.1),
    server=config.Server(learning_rate=1.0),
    privacy=config.no_privacy(),
    rounds=1,
  )


@pytest.mark.parametrize(
  'name',
  [
    name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in TABLE
  ],
)
def test_federated_round(name, tmp_path):
  summary = experiment.run(
    _experiment(name, max_client_examples=_cap(name)), tmp_path
  )
  assert summary['rounds'] == 1 and summary['data'] == 'synthetic stand-in'
  assert all(math.isfinite(value) for value in summary['test'].values())
  record = json.loads((tmp_path / 'config.json').read_text())
  assert record['config']['task']['source'] == 'stand_in'
  assert 'synthetic stand-in' in experiment.describe(summary, tmp_path)
  model = tf.keras.models.load_model(tmp_path / 'model')
  task = tasks.build(_task(name), seed=0)
  assert model(task.test.x[:2]).shape == (2, *TABLE[name][3])


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['har', 'mnist', 'stackoverflow_tags', 'shakespeare', 'cifar100']
)
def test_round_of_example_level_dp_sgd(name, tmp_path):
  leaves = TABLE[name][0]
  if 'clients' not in leaves:
    leaves = {'max_clients': 2, 'max_client_examples': 3}
  task = config.Task(name=name, source='stand_in', **leaves)
  clients = leaves.get('clients', 2)
  private = dataclasses.replace(
    _experiment('digits'),
    task=task,
    privacy=config.Privacy(
      mechanism='dp_sgd',
      noise_multiplier=1.0,
      clip_norm=1.0,
      delta=1e-3,
      population=clients,
    ),
  )
  summary = experiment.run(private, tmp_path)
  assert all(math.isfinite(value) for value in summary['test'].values())
  assert summary['privacy']['unit'] == 'example'


def _cap(name):
  """Clients of FedProx's data can have thousands of examples."""
  return None if 'partition' in TABLE[name][0] else 8


_NO_TENSORFLOW = """
import sys
from tff_pipeline import config, tasks, validate
for name, leaves in {table!r}.items():
  try:
    tasks.prepare(config.Task(name=name, **leaves), data_dir={folder!r})
    print(name, 'ready')
  except validate.UsageError as e:
    print(name, str(e).split(':')[0])
assert not {{'tensorflow', 'keras', 'tensorflow_federated'}} & set(sys.modules)
"""


def test_missing_files_are_noticed_before_tensorflow_loads(tmp_path):
  table = {name: leaves for name, (leaves, *_) in TABLE.items()}
  code = _NO_TENSORFLOW.format(table=table, folder=str(tmp_path / 'none'))
  lines = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    # Nothing is fetched: every request goes to a port that nobody serves.
    env={
      'http_proxy': 'http://127.0.0.1:9',
      'https_proxy': 'http://127.0.0.1:9',
    },
  ).stdout.splitlines()
  found = dict(line.split(' ', 1) for line in lines)
  ready = {name for name, what in found.items() if what == 'ready'}
  assert ready == {'digits', 'synthetic'}
  assert {found[n] for n in TABLE if 'stackoverflow' in n} == {
    '--task.max_clients'
  }
  assert {
    what
    for name, what in found.items()
    if name not in ready and 'stackoverflow' not in name
  } == {'--data_dir'}


def test_run_reads_the_data_folder(tmp_path):
  tiny_files.mnist(tmp_path / 'mnist.npz')
  real = dataclasses.replace(
    _experiment('mnist'),
    task=config.Task(
      name='mnist', model='softmax_regression', partition='iid', clients=3
    ),
  )
  summary = experiment.run(real, tmp_path / 'run', data_dir=tmp_path)
  assert summary['data'] == 'real'
  assert 'stand-in' not in experiment.describe(summary, tmp_path)
  assert 'data_dir' not in (tmp_path / 'run' / 'config.json').read_text()


def test_what_was_read_without_noise_is_in_the_statement(tmp_path, monkeypatch):
  build = tasks.build

  def with_statistics(*args, **kwargs):
    built = build(*args, **kwargs)
    return dataclasses.replace(built, uncovered=('the mean of everything',))

  monkeypatch.setattr(tasks, 'build', with_statistics)
  experiment.run(_experiment('heart_disease'), tmp_path)
  statement = json.loads((tmp_path / 'privacy.json').read_text())
  assert 'the mean of everything' in statement['not_covered']


def test_pooled_task_has_one_client_with_all_examples():
  dealt = config.Task(
    name='digits', partition='dirichlet', clients=9, concentration=0.1
  )
  built = tasks.build(tasks.pooled(dealt), seed=3)
  assert built.train.client_sizes.tolist() == [1437]


def test_pooled_task_keeps_what_is_not_about_dealing():
  dealt = config.Task(
    name='synthetic', model='mlp', max_clients=3, **TABLE['synthetic'][0]
  )
  pooled = tasks.pooled(dealt)
  assert (pooled.alpha, pooled.beta, pooled.model) == (1.0, 1.0, 'mlp')
  whole = tasks.build(dataclasses.replace(dealt, model=None), seed=0).train
  built = tasks.build(dataclasses.replace(pooled, model=None), seed=0).train
  assert built.client_sizes.tolist() == [whole.client_sizes.sum()]


def test_pooled_data_has_no_first_clients():
  for leaf in ('max_clients', 'max_client_examples'):
    with pytest.raises(validate.UsageError, match=f'^--task.{leaf}: '):
      tasks.build(_task('mnist', **{leaf: 2}), seed=0)


def test_first_clients():
  data = client_data.ClientData(
    client_data.Examples(np.arange(6), np.arange(6)), np.array([0, 3, 3, 6])
  )
  kept = client_data.first(data, clients=2)
  assert kept.client_sizes.tolist() == [3, 0]
  assert client_data.first(data, clients=9).client_sizes.tolist() == [3, 0, 3]
  kept = client_data.first(data, examples=2)
  assert kept.examples.x.tolist() == [0, 1, 3, 4]
  assert client_data.first(data, clients=1, examples=1).examples.x.tolist() == [
    0
  ]
