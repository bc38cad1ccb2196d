"""FedProx's generator: sizes, and the laws of its distributions."""

import pathlib

import numpy as np
import pytest
from sklearn import linear_model

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import synthetic


def _generate(alpha, beta, seed=0):
  return synthetic.generate(
    alpha=alpha, beta=beta, rng=np.random.default_rng(seed)
  )


def _means(alpha, beta):
  """Mean features of the clients, [clients * repetitions, 60]."""
  return np.array(
    [
      np.concatenate([train.x, test.x]).mean(0)
      for seed in range(20)
      for train, test in _generate(alpha, beta, seed)
    ]
  )


def test_sizes_are_lognormal_from_fifty_and_a_tenth_is_held_out():
  sizes = []
  for seed in range(40):
    for train, test in _generate(0.0, 0.0, seed):
      total = len(train) + len(test)
      assert len(train) == int(0.9 * total)
      sizes.append(total)
  assert len(sizes) == 40 * 30 and min(sizes) >= 50
  logs = np.log(np.array(sizes) - 50 + 0.5)
  assert np.median(logs) == pytest.approx(4.0, abs=0.25)
  quartiles = np.quantile(logs, [0.25, 0.75])
  assert np.diff(quartiles)[0] / 1.349 == pytest.approx(2.0, abs=0.25)


def test_features_vary_as_the_paper_has_it():
  train, test = max(_generate(1.0, 1.0), key=lambda client: len(client[0]))
  x = np.concatenate([train.x, test.x])
  assert len(x) > 800
  expected = np.arange(1, 61) ** -1.2
  np.testing.assert_allclose(x.var(0) / expected, 1.0, atol=0.25)
  correlation = np.corrcoef(x.T) - np.eye(60)
  assert np.abs(correlation).max() < 0.2


@pytest.mark.parametrize('beta', [0.0, 0.5, 3.0])
def test_beta_is_the_deviation_of_the_clients_centres(beta):
  means = _means(0.0, beta)
  # Over its 60 features a centre is B_k + N(0, 1) / sqrt(60).
  spread = np.sqrt(beta**2 + 1 / 60)
  assert means.mean(1).std() == pytest.approx(spread, rel=0.15)
  assert (means - means.mean(1, keepdims=True)).std() == pytest.approx(
    1.0, rel=0.05
  )


def test_shared_features_are_centred_at_zero():
  assert np.abs(_means(None, None)[:, 20:]).max() < 0.3


def _fit(parts):
  """Returns one linear model of the examples of some clients."""
  model = linear_model.LogisticRegression(C=1e4, max_iter=300)
  return model.fit(*_pooled(parts))


def _pooled(parts):
  x = np.concatenate([part.x for part in parts])[:3000]
  return x, np.concatenate([part.y for part in parts])[:3000]


def _transfer(alpha, beta):
  """Accuracy on half of the clients of a model of the other half."""
  small = [train for train, _ in _generate(alpha, beta) if len(train) < 400]
  middle = len(small) // 2
  return _fit(small[:middle]).score(*_pooled(small[middle:]))


def test_each_client_has_a_labelling_model_and_shared_has_one():
  own = [train for train, _ in _generate(0.5, 0.5) if len(train) < 400]
  varied = [part for part in own if len(set(part.y)) > 1]
  assert len(varied) > 5
  assert all(_fit([part]).score(part.x, part.y) > 0.97 for part in varied[:5])
  assert _transfer(0.5, 0.5) < 0.5
  assert _transfer(None, None) > 0.8


class _Recorded:
  """A generator that keeps the arguments of its normal draws."""

  def __init__(self):
    self._rng = np.random.default_rng(0)
    self.normals = []

  def lognormal(self, *arguments):
    return self._rng.lognormal(*arguments)

  def normal(self, mean, deviation, shape=None):
    self.normals.append((mean, deviation, shape))
    return self._rng.normal(mean, deviation, shape)


def test_alpha_is_the_deviation_of_what_w_and_b_are_drawn_around():
  rng = _Recorded()
  synthetic.generate(alpha=0.5, beta=2.0, rng=rng)
  of_means = [draw for draw in rng.normals if draw[2] is None]
  assert of_means == [(0.0, 0.5, None), (0.0, 2.0, None)] * 30
  models = [draw for draw in rng.normals if draw[2] in ((60, 10), 10)][2:]
  weights, biases = models[::2], models[1::2]
  assert [draw[2] for draw in weights] == [(60, 10)] * 30
  # W and b of a client have one mean.
  assert [draw[0] for draw in weights] == [draw[0] for draw in biases]
  assert len({draw[0] for draw in weights}) == 30
  assert {draw[1] for draw in models} == {1.0}


@pytest.mark.parametrize(
  'leaves',
  [
    {'labelling': 'own', 'alpha': 1.0, 'beta': 0.5},
    {'labelling': 'shared'},
  ],
)
def test_task(leaves):
  task = config.Task(name='synthetic', **leaves)
  data, again = (
    synthetic.load(task, data_dir=pathlib.Path()) for _ in range(2)
  )
  np.testing.assert_array_equal(data.train.examples.x, again.train.examples.x)
  assert data.train.num_clients == data.client_test.num_clients == 30
  assert data.train.examples.x.dtype == np.float32
  assert data.train.examples.y.dtype == np.int32
  assert set(data.train.examples.y) <= set(range(10))
  expected = (None, None) if leaves['labelling'] == 'shared' else (1.0, 0.5)
  first, _ = synthetic.generate(
    alpha=expected[0],
    beta=expected[1],
    rng=np.random.default_rng(synthetic._SEED),
  )[0]
  np.testing.assert_array_equal(data.train.client(0)['x'], first.x)


@pytest.mark.parametrize(
  'leaves, flag',
  [
    ({}, 'task.labelling'),
    ({'labelling': 'own', 'alpha': 1.0}, 'task.beta'),
    ({'labelling': 'shared', 'alpha': 1.0}, 'task.alpha'),
    ({'labelling': 'own', 'alpha': -1.0, 'beta': 0.0}, 'task.alpha'),
  ],
)
def test_leaves_are_demanded(leaves, flag):
  with pytest.raises(validate.UsageError, match=f'^--{flag}: '):
    config.Task(name='synthetic', **leaves)
