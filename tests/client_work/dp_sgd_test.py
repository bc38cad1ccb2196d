import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tests import statistics
from tff_pipeline.client_work import dp_sgd
from tff_pipeline.client_work import training_loop

_HUGE = 1e6
_ALL = (
  small_models.dense,
  small_models.conv,
  small_models.embedding,
  small_models.lstm,
  small_models.dropout,
)


def _gradient(model, *, clip_norm=_HUGE, noise_multiplier=0.0):
  return dp_sgd.gradient(
    model, clip_norm=clip_norm, noise_multiplier=noise_multiplier
  )


class _OneStep:
  """The gradient of one batch at the initial weights."""

  def __init__(self, model, gradient, *, batch_size=4):
    graph = tf.Graph()
    with graph.as_default():
      spec = model.input_spec['x']
      self._x = tf.compat.v1.placeholder(spec.dtype, spec.shape)
      self._y = tf.compat.v1.placeholder(tf.int32, [None])
      self._number = tf.compat.v1.placeholder(tf.int64, [])
      self._noise_key = tf.compat.v1.placeholder(tf.int64, [2])
      weights = tuple(map(tf.constant, model.initial_weights[0]))
      step = training_loop.Step(
        number=self._number,
        seed=tf.constant([3, 4], tf.int64),
        batch_size=batch_size,
        start=weights,
        element={training_loop.NOISE_KEY: self._noise_key},
      )
      found = gradient.call((weights, ()), self._x, self._y, step)
      self._found = found._asdict()
      self._found['value'] = [tf.convert_to_tensor(g) for g in found.value]
    self._session = tf.compat.v1.Session(graph=graph)

  def __call__(self, x, y, *, number=0, noise_key=(0, 0)):
    feed = {
      self._x: x,
      self._y: y,
      self._number: number,
      self._noise_key: noise_key,
    }
    return self._session.run(self._found, feed)


def _flat(tensors):
  return np.concatenate([np.ravel(t) for t in tensors])


@pytest.mark.parametrize('factory', _ALL[:-1])
def test_clipped_sum_equals_a_numpy_loop(factory):
  model = small_models.build(factory)
  x, y = small_models.examples(model, 6)
  plain = _OneStep(model, training_loop.batch_gradient(model))
  each = [_flat(plain(x[i : i + 1], y[i : i + 1])['value']) for i in range(6)]
  norms = [np.linalg.norm(g) for g in each]
  clip_norm = float(np.median(norms))
  expected = sum(
    g * min(1.0, clip_norm / norm) for g, norm in zip(each, norms, strict=True)
  )
  private = _OneStep(model, _gradient(model, clip_norm=clip_norm), batch_size=8)
  found = private(x, y)
  np.testing.assert_allclose(_flat(found['value']), expected / 8, atol=1e-6)
  assert found['counts'] == {'clipped_examples': 3, 'rejected_examples': 0}
  whole_batch = plain(x, y)
  np.testing.assert_allclose(found['loss'], whole_batch['loss'], rtol=1e-5)
  np.testing.assert_allclose(found['output'], whole_batch['output'], atol=1e-6)


_WAYS = {
  'batched': dp_sgd._batched_sum,
  'vectorized': dp_sgd._vectorized_sum,
  'looped': dp_sgd._looped_sum,
}


@pytest.mark.parametrize(
  'factory, way',
  [
    (small_models.dense, 'batched'),
    (small_models.conv, 'batched'),
    (small_models.embedding, 'batched'),
    (small_models.lstm, 'looped'),
    (small_models.dropout, 'looped'),
  ],
)
def test_the_cheapest_way_is_taken(factory, way):
  assert dp_sgd._clipped_sum(small_models.build(factory)) is _WAYS[way]


@pytest.fixture(params=list(_WAYS))
def either_way(request, monkeypatch):
  monkeypatch.setattr(
    dp_sgd, '_clipped_sum', lambda model: _WAYS[request.param]
  )


def test_one_example_never_exceeds_the_clip_norm(either_way):
  clip_norm = 0.05
  model = small_models.build(small_models.conv)
  x, y = small_models.examples(model, 20)
  step = _OneStep(model, _gradient(model, clip_norm=clip_norm), batch_size=1)
  for i, scale in enumerate(np.geomspace(1e-2, 1e4, 20)):
    found = step(scale * x[i : i + 1], y[i : i + 1])
    norm = np.linalg.norm(_flat(found['value']).astype(np.float64))
    assert norm <= clip_norm * (1 + 1e-5)
    if found['counts']['clipped_examples']:
      assert norm == pytest.approx(clip_norm, rel=1e-5)


def test_example_that_is_not_finite_counts_as_zero(either_way):
  model = small_models.build(small_models.dense)
  x, y = small_models.examples(model, 6)
  step = _OneStep(model, _gradient(model, clip_norm=0.1))
  expected = step(x[[0, 1, 3, 5]], y[[0, 1, 3, 5]])
  clipped = expected['counts']['clipped_examples']
  # The last one is finite, with a gradient whose squares are not.
  for bad in (np.inf, np.nan, 1e30):
    x[[2, 4]] = bad
    found = step(x, y)
    np.testing.assert_allclose(
      _flat(found['value']), _flat(expected['value']), atol=1e-7
    )
    assert found['counts'] == {
      'clipped_examples': clipped,
      'rejected_examples': 2,
    }


def test_nothing_is_left_of_a_batch_without_finite_examples(either_way):
  model = small_models.build(small_models.dense)
  x, y = small_models.examples(model, 3)
  found = _OneStep(model, _gradient(model))(x * np.inf, y)
  assert not np.any(_flat(found['value']))
  assert found['counts']['rejected_examples'] == 3


def test_empty_batch_is_noise(either_way):
  model = small_models.build(small_models.conv)
  x, y = small_models.examples(model, 0)
  gradient = _gradient(model, clip_norm=1.0, noise_multiplier=1.0)
  found = _OneStep(model, gradient)(x, y)
  assert np.all(_flat(found['value']) != 0)


def test_divides_by_the_nominal_batch_size(either_way):
  model = small_models.build(small_models.dense)
  x, y = small_models.examples(model, 3)
  plain = _OneStep(model, training_loop.batch_gradient(model))(x, y)
  found = _OneStep(model, _gradient(model), batch_size=12)(x, y)
  np.testing.assert_allclose(
    _flat(found['value']), _flat(plain['value']) * 3 / 12, atol=1e-6
  )


def test_both_ways_draw_one_dropout_mask_per_example(monkeypatch):
  model = small_models.build(small_models.dropout)
  x, y = small_models.examples(model, 1)
  x, y = np.repeat(x, 5, axis=0), np.repeat(y, 5)
  values = {}
  for way in ('vectorized', 'looped'):
    monkeypatch.setattr(
      dp_sgd, '_clipped_sum', lambda model, way=way: _WAYS[way]
    )
    step = _OneStep(model, _gradient(model))
    values[way] = _flat(step(x, y)['value'])
    alone = _flat(step(x[:1], y[:1])['value'])
    assert not np.allclose(values[way], 5 * alone, atol=1e-3)
  np.testing.assert_allclose(values['vectorized'], values['looped'], atol=1e-6)


_OPTIMIZERS = {
  'sgd': lambda: tff.learning.optimizers.build_sgdm(0.3),
  'momentum': lambda: tff.learning.optimizers.build_sgdm(0.3, momentum=0.9),
  'adam': lambda: tff.learning.optimizers.build_adam(0.05),
}


@pytest.mark.parametrize(
  'factory, optimizer',
  [
    (small_models.dense, 'momentum'),
    pytest.param(small_models.conv, 'adam', marks=pytest.mark.slow),
    pytest.param(small_models.embedding, 'adam', marks=pytest.mark.slow),
    pytest.param(small_models.lstm, 'sgd', marks=pytest.mark.slow),
  ],
)
def test_without_noise_and_clipping_it_is_plain_training(factory, optimizer):
  model = small_models.build(factory)
  client = small_models.element(*small_models.examples(model, 8))
  found = {}
  for name, gradient in {
    'plain': training_loop.batch_gradient(model),
    'private': _gradient(model),
  }.items():
    train = small_models.Trainer(
      model, gradient, optimizer=_OPTIMIZERS[optimizer](), epochs=2
    )
    found[name] = train(client)
  plain, private = found['plain'], found['private']
  # Adam divides by the root of second moments near zero: rounding is enlarged.
  tolerance = 1e-4 if optimizer == 'adam' else 2e-6
  np.testing.assert_allclose(_flat(plain[0]), _flat(private[0]), atol=tolerance)
  np.testing.assert_allclose(
    plain[1]['loss_sum'], private[1]['loss_sum'], rtol=1e-4
  )


_CLIP_NORM = 0.5
_NOISE_MULTIPLIER = 2.0


@pytest.fixture(scope='module')
def steps():
  """(number, batch, noise key) -> the noise of a step, as a list of tensors."""
  model = small_models.build(small_models.wide)
  noised, exact = (
    _OneStep(model, _gradient(model, clip_norm=_CLIP_NORM, noise_multiplier=z))
    for z in (_NOISE_MULTIPLIER, 0.0)
  )

  def noise(*, number=0, size=4, noise_key=(1, 2)):
    x, y = small_models.examples(model, size)
    values = (
      step(x, y, number=number, noise_key=noise_key)['value']
      for step in (noised, exact)
    )
    return [a - b for a, b in zip(*values, strict=True)]

  return noise


# Batch sizes: whole, and the last one of an epoch.
@pytest.mark.parametrize('size', [4, 1])
def test_noise_of_a_step_has_the_stated_stddev(steps, size):
  noise = [
    part for number in range(4) for part in steps(number=number, size=size)
  ]
  statistics.assert_stddev(noise, _NOISE_MULTIPLIER * _CLIP_NORM / 4)


def test_no_two_steps_clients_or_tensors_share_noise(steps):
  kernels = [
    steps(number=number, noise_key=key)[0]
    for number in (0, 1, 2)
    for key in ((1, 2), (2, 1), (1, 3))
  ]
  statistics.assert_unrelated(kernels)
  kernel, bias = steps()
  assert not np.any(np.isclose(np.ravel(kernel)[: bias.size], bias))


def test_noise_is_the_same_again_whatever_the_global_seed(steps):
  first = steps(number=3)
  tf.random.set_seed(11)
  for one, other in zip(first, steps(number=3), strict=True):
    np.testing.assert_array_equal(one, other)


def test_every_step_of_a_training_is_noised_by_the_noise_key_alone():
  """On data of zeros, where no gradient depends on the weights."""
  model = small_models.build(small_models.wide)
  x, y = small_models.examples(model, 10)
  noised, exact = (
    small_models.Trainer(
      model, _gradient(model, clip_norm=1e-3, noise_multiplier=z), epochs=2
    )
    for z in (1.0, 0.0)
  )

  def train(key, noise_key):
    client = small_models.element(0 * x, y, key=key, noise_key=noise_key)
    weights, metrics = noised(client)
    return weights[0] - exact(client)[0][0], metrics

  noise, metrics = train((1, 2), (3, 4))
  # Two epochs of batches of 4, 4 and 2 are six steps of SGD at rate 1.
  statistics.assert_stddev([noise], 1e-3 / 4 * np.sqrt(6))
  assert metrics['num_batches'] == 6
  assert metrics['clipped_examples'] == metrics['num_examples'] == 20
  other_shuffle, _ = train((9, 9), (3, 4))
  np.testing.assert_allclose(noise, other_shuffle, atol=1e-7)
  other_noise, _ = train((1, 2), (3, 5))
  statistics.assert_unrelated([noise, other_noise])


def test_poisson_batches_are_divided_by_their_expected_size():
  """At a rate of 1 every step is one of plain descent on all examples."""
  model = small_models.build(small_models.dense)
  client = small_models.element(
    *small_models.examples(model, 10), noise_key=(5, 6)
  )
  sampled = small_models.Trainer(
    model, _gradient(model), epochs=3, batch_size=None, sampling_rate=1.0
  )
  whole = small_models.Trainer(
    model, training_loop.batch_gradient(model), epochs=3, batch_size=10
  )
  for one, other in zip(sampled(client)[0], whole(client)[0], strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize('factory', [small_models.dense, small_models.lstm])
def test_empty_poisson_batches_are_steps_of_noise(factory):
  model = small_models.build(factory)
  client = small_models.element(
    *small_models.examples(model, 2), noise_key=(5, 6)
  )
  train = small_models.Trainer(
    model,
    _gradient(model, clip_norm=1.0, noise_multiplier=1.0),
    batch_size=None,
    sampling_rate=0.02,
  )
  weights, metrics = train(client)
  assert metrics['num_batches'] == 50
  assert metrics['num_examples'] < 25  # So that most batches were empty.
  assert all(np.all(np.isfinite(w)) for w in weights)
  assert np.isfinite(metrics['loss_sum'])
