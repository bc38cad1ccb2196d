import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure

from tests import small_models
from tff_pipeline import config
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop

_UPDATE_COUNTS = ('seen_updates',)


def _build(model, *, weighting, release=protection.UNCHANGED, extra_spec=None):
  return model_delta.build(
    model,
    training_loop.batch_gradient(model),
    optimizer=tff.learning.optimizers.build_sgdm(0.1),
    schedule=training_loop.Schedule(
      epochs=2, batch_size=3, shuffle=config.Shuffle.ON
    ),
    weighting=weighting,
    release=release,
    extra_spec=extra_spec or {},
  )


@pytest.fixture(scope='module')
def model():
  return small_models.build(small_models.dense)


@pytest.fixture(scope='module')
def cohort(model):
  """Three clients; the second one's data gives an undefined update."""
  clients = []
  for index, size in enumerate((4, 3, 5)):
    x, y = small_models.examples(model, size, seed=index)
    clients.append(small_models.element(np.nan * x if index == 1 else x, y))
  return clients


def _next(process, model, clients):
  weights = tff.learning.models.ModelWeights(*model.initial_weights)
  data = [tf.data.Dataset.from_tensors(c) for c in clients]
  return process.next((), [weights] * len(clients), data)


@pytest.mark.parametrize('weighting', config.Weighting)
def test_update_that_is_not_finite_is_zero_as_a_whole(
  model, cohort, weighting, on_tff_runtime
):
  process = _build(model, weighting=weighting)
  results = _next(process, model, cohort)
  weights = [r.update_weight for r in results.result]
  by_examples = weighting is config.Weighting.NUM_EXAMPLES
  assert weights == ([8, 0, 10] if by_examples else [1, 0, 1])
  for index, result in enumerate(results.result):
    assert all(np.all(np.isfinite(t)) for t in result.update)
    assert any(np.any(t) for t in result.update) == (index != 1)
  train = results.measurements['train']
  assert train['rejected_updates'] == 1
  assert train['num_examples'] == 18
  assert train['num_batches'] == 8
  others = _next(process, model, [cohort[0], cohort[2]])
  for name in ('loss', 'accuracy'):
    assert train[name] == pytest.approx(
      others.measurements['train'][name], rel=1e-6
    )
  for one, other in zip(
    (results.result[0], results.result[2]), others.result, strict=True
  ):
    for left, right in zip(one.update, other.update, strict=True):
      np.testing.assert_array_equal(left, right)


def test_release_sees_the_finite_update_and_the_element(
  model, cohort, on_tff_runtime
):
  def call(update, element):
    scale = tf.cast(element['noise_key'][0], tf.float32)
    changed = tf.nest.map_structure(lambda t: t * scale + 1.0, update)
    return changed, {'seen_updates': tf.constant(1)}, {}

  process = _build(
    model,
    weighting=config.Weighting.UNIFORM,
    release=protection.Release(call=call, counts=_UPDATE_COUNTS),
    extra_spec={training_loop.NOISE_KEY: training_loop.KEY_SPEC},
  )
  plain = _next(
    _build(model, weighting=config.Weighting.UNIFORM), model, cohort
  )
  keyed = [c | {'noise_key': np.array([7, 0])} for c in cohort]
  changed = _next(process, model, keyed)
  for before, after in zip(plain.result, changed.result, strict=True):
    for one, other in zip(before.update, after.update, strict=True):
      np.testing.assert_allclose(one * 7 + 1, other, atol=1e-6)
  assert changed.measurements['train']['seen_updates'] == 3


def test_element_has_a_noise_key_only_if_asked_for(model):
  def names(process):
    data = process.next.type_signature.parameter[2].member.element
    return structure.name_list(data)

  plain = _build(model, weighting=config.Weighting.UNIFORM)
  noised = _build(
    model,
    weighting=config.Weighting.UNIFORM,
    extra_spec={training_loop.NOISE_KEY: training_loop.KEY_SPEC},
  )
  assert names(plain) == ['x', 'y', 'key']
  assert names(noised) == ['x', 'y', 'key', 'noise_key']
