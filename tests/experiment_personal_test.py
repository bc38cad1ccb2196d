"""Whole private runs with heads that stay on clients, and clients held out."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import evaluation
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.algorithms import partial
from tff_pipeline.data import client_data
from tff_pipeline.engines import client_store
from tff_pipeline.experiment import building
from tff_pipeline.outputs import checkpoints
from tff_pipeline.privacy import noise_key as noise_keys

_HELD_OUT = 8
_BODY, _HEAD = 64 * 32 + 32, 32 * 10 + 10


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Builds equal parts once, and draws no pages."""
  with small_runs.cached_parts(), small_runs.without_reports():
    yield


def _build(**changes):
  """Returns a small private experiment with heads, and eight held out."""
  return small_runs.build(
    **{
      'task': config.Task(
        name='digits', model='mlp', partition='iid', clients=60 + _HELD_OUT
      ),
      'algorithm': config.Algorithm(name='fed_per', local_layers='1'),
      'personalization': config.Personalization(
        name='fine_tuning',
        validation_clients=3,
        test_clients=_HELD_OUT - 3,
        epochs=3,
        learning_rate=0.3,
      ),
      'evaluate_clients_every': 6,
    }
    | changes
  )


@pytest.fixture(name='whole', scope='module')
def fixture_whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  experiment.run(_build(), folder)
  return folder


def _summary(folder):
  return json.loads((folder / 'summary.json').read_text())


def _heads(folder):
  """Returns client -> head of the newest checkpoint, and the parts."""
  wanted = _build()
  key = noise_keys.from_seed(wanted.privacy.noise_seed)
  parts = building.build(wanted, noise_key=key)
  store = client_store.Store(parts.channel, initial=parts.initial_client_state)
  opened = checkpoints.Checkpoints(
    folder / 'checkpoints', warn=pytest.fail, store=store
  )
  with parts.engine as engine:
    opened.restore(engine.initialize())
  return {c: store.state(c)[partial.LOCAL] for c in store.clients}, parts


def test_resumed_run_has_the_heads_of_an_uninterrupted_one(whole, tmp_path):
  small_runs.crashed(_build(), tmp_path, in_round=4)
  experiment.run(_build(), tmp_path)
  small_runs.assert_same(tmp_path, whole, _build())
  found, _ = _heads(tmp_path)
  expected, _ = _heads(whole)
  assert found.keys() == expected.keys()
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    found,
    expected,
  )
  ours, theirs = (
    (folder / 'personalization.csv').read_text() for folder in (tmp_path, whole)
  )
  assert ours == theirs


def test_released_model_has_the_initial_head_and_clients_have_their_own(whole):
  heads, parts = _heads(whole)
  initial = parts.initial_client_state[partial.LOCAL]
  saved = small_runs.weights(whole)
  for one, other in zip(saved[2:], initial, strict=True):
    np.testing.assert_array_equal(one, other)
  start = parts.model.initial_weights[0]
  assert np.abs(saved[0] - start[0]).max() > 1e-2
  cohorts = [parts.sampler(r) for r in range(1, small_runs.ROUNDS + 1)]
  assert sorted(heads) == sorted(set(np.concatenate(cohorts).tolist()))
  assert all(np.abs(h[1] - initial[1]).max() > 1e-3 for h in heads.values())
  biases = np.array([h[1] for h in heads.values()])
  assert biases.std(axis=0).min() > 1e-4


def test_price_is_that_of_fed_avg_on_the_clients_that_train(whole, tmp_path):
  plain = _build(algorithm=config.Algorithm(), evaluate_clients_every=None)
  experiment.run(plain, tmp_path)
  ours, theirs = _summary(whole), _summary(tmp_path)
  assert ours['privacy']['population'] == 60
  assert ours['privacy']['epsilon'] == theirs['privacy']['epsilon'] > 0
  sentence = ' '.join(ours['privacy']['not_covered'])
  assert 'layers that stay on the clients' in sentence
  # A client's own weight comes after its update.
  assert ours['communication']['bytes_up'] == 4 * _BODY + 4
  assert ours['communication']['bytes_down'] == 4 * _BODY
  assert theirs['communication']['bytes_up'] == 4 * (_BODY + _HEAD) + 4
  assert theirs['personalization']['adapted_layers'] == 'all'


def test_own_heads_are_what_clients_are_measured_with(whole):
  heads, parts = _heads(whole)
  evaluator = evaluation.Evaluator(parts.model, test=parts.task.test)
  body = small_runs.weights(whole)[:2]

  def accuracy(client, head):
    return evaluator.on(
      tff.learning.models.ModelWeights(body, head),
      client_data.Examples(**parts.task.train.client(client)),
    )['accuracy']

  initial = parts.initial_client_state[partial.LOCAL]
  own = [accuracy(c, heads.get(c, initial)) for c in range(60)]
  found = _summary(whole)['clients']['unnoised_client_train_accuracy_mean']
  assert found == pytest.approx(np.mean(own))
  assert found > np.mean([accuracy(c, initial) for c in range(60)])


def test_held_out_clients_are_in_summary_table_and_description(whole):
  summary = _summary(whole)
  found = summary['personalization']
  assert found['adapted_layers'] == 'local'
  with open(whole / 'personalization.csv', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == _HELD_OUT
  test = [row for row in rows if row['role'] == 'test']
  assert len(test) == found['clients'] == _HELD_OUT - 3
  column = f'accuracy_after_{found["epochs"]}'
  mean = np.mean([float(row[column]) for row in test])
  assert found['after']['mean'] == pytest.approx(mean)
  text = experiment.describe(summary, whole)
  assert 'personalized:' in text and f'on {len(test)} held-out clients' in text
  assert 'with the initial local layers' in text


def test_population_is_without_those_held_out():
  with pytest.raises(validate.UsageError, match='that train, 60'):
    _build(privacy=small_runs.privacy(population=60 + _HELD_OUT))


@pytest.mark.parametrize(
  'changes, flag',
  [
    (
      {'algorithm': {'name': 'fed_per', 'local_layers': '2'}},
      'algorithm.local_layers',
    ),
    (
      {'algorithm': {'name': 'fed_recon', 'local_layers': '1'}},
      'algorithm.local_steps',
    ),
    (
      {
        'algorithm': {
          'name': 'fed_recon',
          'local_layers': '1',
          'local_steps': 1,
        }
      },
      'evaluate_clients_every',
    ),
    ({'algorithm': {'local_layers': '1'}}, 'algorithm.local_layers'),
  ],
)
def test_leaves_that_do_not_fit_are_refused_before_anything_is_written(
  changes, flag, tmp_path
):
  leaves = config.to_dict(_build()) | changes
  with pytest.raises(validate.UsageError, match=f'^--{flag}: '):
    experiment.run(config.from_dict(leaves), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
