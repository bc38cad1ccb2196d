import numpy as np
import pytest

from tests.data.partition import dealing_test
from tff_pipeline import validate

_N, _CLIENTS = 240, 6
_LABELS = np.arange(_N) % 10


def _deal(transform, strength, x, *, seed=0):
  return dealing_test.deal(
    'feature_skew',
    labels=_LABELS,
    x=x,
    clients=_CLIENTS,
    transform=transform,
    transform_strength=strength,
    seed=seed,
  )


def _grey(dtype=np.float32):
  """Images, all of them the same grey."""
  grey = 0.5 if dtype == np.float32 else 128
  return np.full((_N, 12, 12, 1), grey, dtype)


def _per_client(data, of):
  return [of(data.client(k)['x']) for k in range(_CLIENTS)]


@pytest.mark.parametrize('transform', ['noise', 'rotation', 'brightness'])
@pytest.mark.parametrize('dtype', [np.float32, np.uint8])
def test_strength_zero_changes_nothing(transform, dtype):
  rng = np.random.default_rng(0)
  x = (255 * rng.random((_N, 5, 5, 1))).astype(dtype)
  changed, plain = (
    _deal(t, 0.0, x).examples.x for t in (transform, 'brightness')
  )
  assert changed.dtype == dtype
  np.testing.assert_allclose(changed, plain, rtol=1e-6)


def test_noise_levels_are_spread_evenly_over_the_clients():
  found = sorted(_per_client(_deal('noise', 0.1, _grey()), np.std))
  np.testing.assert_allclose(found, np.linspace(0, 0.1, _CLIENTS), atol=0.004)


def test_brightness_is_one_factor_a_client():
  data = _deal('brightness', 0.5, _grey())
  assert max(_per_client(data, np.ptp)) == 0.0
  factors = np.array(_per_client(data, np.mean)) / 0.5
  assert len(set(factors)) == _CLIENTS
  assert 0.5 <= factors.min() < 1.0 < factors.max() <= 1.5


def test_rotation_is_one_angle_a_client():
  # A line from the centre upwards, in an odd image.
  x = np.zeros((_N, 21, 21), np.float32)
  x[:, :8, 10] = 1.0
  data = _deal('rotation', 60.0, x)

  def angle(images):
    rows, columns = np.nonzero(images.mean(axis=0) > 0.3)
    return np.degrees(np.arctan2((columns - 10).mean(), (10 - rows).mean()))

  angles = np.array(_per_client(data, angle))
  assert len(set(angles.round(3))) == _CLIENTS
  assert np.abs(angles).max() < 62 and np.ptp(angles) > 30
  spread = _per_client(data, lambda images: images.std(axis=0).max())
  assert max(spread) < 1e-6


def test_bytes_stay_bytes_and_do_not_wrap_around():
  bright = np.full((_N, 4, 4, 1), 250, np.uint8)
  found = _deal('noise', 0.2, bright).examples.x
  assert found.dtype == np.uint8
  assert found.min() > 40  # Wrapped around, the brightest would be near 0.
  assert np.mean(found == 255) > 0.2


def test_examples_themselves_are_not_changed():
  x = _grey()
  _deal('noise', 0.5, x)
  assert np.ptp(x) == 0.0


@pytest.mark.parametrize(
  'transform, strength, x, flag',
  [
    ('rotation', 10.0, np.zeros((_N, 4), np.float32), 'transform'),
    ('brightness', 1.1, _grey(), 'transform_strength'),
    ('noise', 0.1, np.zeros((_N, 4), np.int32), 'partition'),
  ],
)
def test_refuses_what_cannot_be_transformed(transform, strength, x, flag):
  with pytest.raises(validate.UsageError, match=f'^--task.{flag}: '):
    _deal(transform, strength, x)
