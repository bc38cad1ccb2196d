"""Held-out clients with known answers: who they are, and what they get."""

import collections
import csv
import dataclasses
import io

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline import evaluation
from tff_pipeline import personalization
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.models import split as splits

_LEAVES = config.Personalization(
  name='fine_tuning',
  validation_clients=2,
  test_clients=3,
  epochs=4,
  learning_rate=0.2,
)
_SIZES = (6, 5, 4, 9, 2, 7, 3, 8, 11, 2)


def _task(sizes=_SIZES, *, client_test=None, metrics=('accuracy',)):
  """Returns a task whose examples count up, client by client."""
  number = sum(sizes)
  examples = client_data.Examples(
    np.arange(number, dtype=np.float32)[:, np.newaxis], np.arange(number)
  )
  data = client_data.ClientData(
    examples, np.cumsum([0, *sizes], dtype=np.int64)
  )
  return tasks.Task(
    train=data,
    test=examples,
    model_factory=None,
    loss_factory=None,
    metric_factory=lambda: collections.OrderedDict.fromkeys(metrics),
    input_spec={},
    client_test=client_test,
  )


def test_held_out_clients_are_disjoint_and_the_rest_trains():
  task = _task()
  left, members = personalization.hold_out(task, _LEAVES, seed=3)
  assert [m.role for m in members] == ['validation'] * 2 + ['test'] * 3
  assert left.train.num_clients == len(_SIZES) - 5
  parts = [e.y for m in members for e in (m.adapting, m.measuring)]
  everything = np.concatenate([left.train.examples.y, *parts])
  np.testing.assert_array_equal(np.sort(everything), task.train.examples.y)
  for member in members:
    own = task.train.client(member.client)['y']
    found = np.concatenate([member.adapting.y, member.measuring.y])
    np.testing.assert_array_equal(np.sort(found), own)
    assert len(member.adapting) == len(own) // 2
    np.testing.assert_array_equal(member.adapting.x[:, 0], member.adapting.y)


def test_seed_decides_who_is_held_out():
  def clients(seed):
    _, members = personalization.hold_out(_task(), _LEAVES, seed=seed)
    return [m.client for m in members]

  assert clients(3) == clients(3)
  assert len({tuple(clients(seed)) for seed in range(5)}) > 1


def test_what_the_data_holds_out_of_a_client_is_what_measures_it():
  train = _task().train
  test = client_data.ClientData(
    client_data.Examples(train.examples.x + 100, train.examples.y + 100),
    train.offsets,
  )
  left, members = personalization.hold_out(
    _task(client_test=test), _LEAVES, seed=3
  )
  for member in members:
    own = train.client(member.client)['y']
    np.testing.assert_array_equal(member.adapting.y, own)
    np.testing.assert_array_equal(member.measuring.y, own + 100)
  np.testing.assert_array_equal(
    left.client_test.examples.y, left.train.examples.y + 100
  )


def test_without_personalization_nobody_is_held_out():
  task = _task()
  found, members = personalization.hold_out(
    task, config.Personalization(), seed=3
  )
  assert found is task and members == ()


@pytest.mark.parametrize(
  'task, flag',
  [
    (lambda: _task((3, 3, 3, 3, 3)), 'personalization.test_clients'),
    (lambda: _task((1,) * 9), 'personalization.validation_clients'),
    (lambda: _task(metrics=('loss',)), 'personalization.name'),
  ],
)
def test_task_that_does_not_fit_is_refused(task, flag):
  with pytest.raises(validate.UsageError, match=f'^--{flag}: '):
    personalization.hold_out(task(), _LEAVES, seed=3)


def _member(client, role, *, adapting, measuring):
  """Returns a client whose inputs are zero, with one label on each side."""

  def examples(label):
    return client_data.Examples(
      np.zeros((4, 6), np.float32), np.full(4, label, np.int32)
    )

  return personalization.Member(
    client=client,
    role=personalization.Role(role),
    adapting=examples(adapting),
    measuring=examples(measuring),
  )


_MEMBERS = (
  _member(7, 'validation', adapting=1, measuring=1),
  _member(3, 'test', adapting=0, measuring=0),
  _member(5, 'test', adapting=1, measuring=0),
  _member(2, 'test', adapting=1, measuring=1),
)


@pytest.fixture(name='outcome', scope='module')
def fixture_outcome():
  """A biased model: its answer is 0, by half a logit before 1.

  An epoch is one step along the gradient of the bias alone. On label 1 it takes
  the lead from 0.5 to 0.251, 0.026 and -0.176 at a rate of 0.2.
  """
  model = small_models.build(cohorts.linear)
  bias = np.array([0.5, 0.0, -9.0, -9.0], np.float32)
  weights = tff.learning.models.ModelWeights(
    (np.zeros((6, 4), np.float32), bias), ()
  )
  return personalization.measure(
    model,
    weights,
    _MEMBERS,
    leaves=_LEAVES,
    batch_size=10,
    seed=0,
    evaluator=evaluation.Evaluator(model, test=_MEMBERS[0].measuring),
  )


def test_accuracies_after_each_epoch(outcome):
  np.testing.assert_array_equal(
    outcome.accuracies,
    [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
  )


def test_validation_clients_choose_the_shortest_best_length(outcome):
  assert outcome.epochs == 3
  validated = np.array([[0.5, 0.9, 0.9, 0.2], [1, 0, 0, 0]])
  other = dataclasses.replace(
    outcome, members=_MEMBERS[:2], accuracies=validated
  )
  assert other.epochs == 1


def test_summary_is_the_distribution_over_test_clients(outcome):
  found = outcome.summary()
  assert found['adapted_layers'] == 'all'
  assert (found['epochs'], found['clients']) == (3, 3)
  for part in ('before', 'after'):
    assert found[part] == pytest.approx(
      {'mean': 2 / 3, 'p10': 0.2, 'p90': 1.0, 'worst_decile': 0.0}
    )
  assert found['share_hurt'] == pytest.approx(1 / 3)


def test_table_has_a_row_for_each_client(outcome):
  rows = list(csv.DictReader(io.StringIO(outcome.table())))
  assert [row['client'] for row in rows] == ['7', '3', '5', '2']
  assert rows[2] == {
    'client': '5',
    'role': 'test',
    'adapting_examples': '4',
    'measuring_examples': '4',
    **{f'accuracy_after_{e}': '1.0' for e in range(3)},
    **{f'accuracy_after_{e}': '0.0' for e in (3, 4)},
  }


def test_only_local_layers_adapt_where_there_are_some():
  whole = small_models.build(small_models.dense)
  split = splits.build(whole, '1')
  adapter = personalization._Adapter(split, learning_rate=0.5, batch_size=2)
  assert adapter.is_local
  x, y = small_models.examples(whole, 6)
  start = tff.learning.models.ModelWeights(*split.initial_weights)
  arguments = {'key': np.array([1, 2]), 'epoch': 1}
  found = adapter(start, client_data.Examples(x, y), **arguments)
  assert found.trainable is start.trainable
  moved = [
    np.abs(a - b).max()
    for a, b in zip(found.non_trainable, start.non_trainable, strict=True)
  ]
  assert min(moved) > 1e-2
  again = adapter(start, client_data.Examples(x, y), key=[1, 2], epoch=2)
  assert np.abs(again.non_trainable[1] - found.non_trainable[1]).max() > 0


def test_leaves_are_needed_and_unused_ones_refused():
  with pytest.raises(validate.UsageError, match='^--personalization.epochs'):
    config.Personalization(epochs=3)
  with pytest.raises(validate.UsageError, match='^--personalization.test_cl'):
    config.Personalization(
      name='fine_tuning', validation_clients=1, epochs=1, learning_rate=0.1
    )
