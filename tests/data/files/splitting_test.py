import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data.files import splitting


def _task(**leaves):
  return config.Task(name='csv', path='x', label_column='y', **leaves)


def _held_out(owners, **leaves):
  return splitting.held_out(owners, rows=len(owners), task=_task(**leaves))


@st.composite
def _owners(draw):
  sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=12))
  owners = np.repeat(np.arange(len(sizes)), sizes)
  return np.random.default_rng(draw(st.integers(0, 9))).permutation(owners)


@hypothesis.settings(deadline=None, max_examples=100, derandomize=True)
@hypothesis.given(owners=_owners(), share=st.floats(0.01, 0.99))
def test_within_client_leaves_every_client_a_row(owners, share):
  try:
    test = _held_out(owners, test_share=share)
  except validate.UsageError:
    return
  sizes = np.bincount(owners)
  held = np.bincount(owners[test], minlength=len(sizes))
  assert np.all(held < sizes)
  assert np.all(held <= np.floor(share * sizes) + 1)
  assert np.all(held >= np.minimum(np.floor(share * sizes), sizes - 1))


@hypothesis.settings(deadline=None, max_examples=100, derandomize=True)
@hypothesis.given(owners=_owners(), share=st.floats(0.01, 0.99))
def test_by_client_holds_out_whole_clients(owners, share):
  number = owners.max() + 1
  if number < 2:
    with pytest.raises(validate.UsageError, match='task.split'):
      _held_out(owners, test_share=share, split='by_client')
    return
  test = _held_out(owners, test_share=share, split='by_client')
  held, kept = set(owners[test]), set(owners[~test])
  assert held and kept and not held & kept
  assert abs(len(held) - share * number) <= 1


def test_share_is_kept_over_many_small_clients():
  owners = np.repeat(np.arange(5_000), 2)
  assert _held_out(owners).mean() == pytest.approx(0.2, abs=0.01)


def test_pooled_rows():
  test = splitting.held_out(None, rows=1_000, task=_task(test_share=0.3))
  assert 299 <= test.sum() <= 301
  assert 0 < test[:500].sum() < 300  # From everywhere.


def test_clients_that_are_not_there_are_not_held_out():
  with pytest.raises(validate.UsageError, match='^--task.split: '):
    splitting.held_out(None, rows=10, task=_task(split='by_client'))


def test_nothing_to_hold_out_is_refused():
  with pytest.raises(validate.UsageError, match='^--task.test_share: '):
    _held_out(np.arange(50))
