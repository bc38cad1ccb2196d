import collections

import numpy as np
import pytest
from scipy import stats

from tests.data.partition import dealing_test
from tff_pipeline import validate
from tff_pipeline.data.partition import labels as by_label

deal = dealing_test.deal


def _skew(data):
  """Mean share of a client's most frequent label."""
  shares = [
    np.bincount(data.client(i)['y']).max() / data.client_sizes[i]
    for i in range(data.num_clients)
  ]
  return np.mean(shares)


def test_concentration_runs_from_skewed_to_alike():
  skews = [
    _skew(deal('dirichlet', clients=50, concentration=concentration))
    for concentration in (1e-3, 1.0, 1e4)
  ]
  assert skews[0] > 0.8 > skews[1] > skews[2]
  assert skews[2] == pytest.approx(_skew(deal('iid', clients=50)), abs=0.05)


@pytest.mark.parametrize('concentration', [1e-300, 1e-12, 1e12])
def test_extreme_concentrations(concentration):
  data = deal('dirichlet', concentration=concentration)
  assert sorted(data.examples.x) == list(range(500))


def test_a_label_is_dealt_in_dirichlet_proportions():
  """A share of one of ten clients is Beta(0.5, 4.5), before anybody is full."""
  labels = np.repeat([0, 1], 5_000)
  shares = [
    len(part[part < 5_000]) / 5_000
    for seed in range(40)
    for part in by_label.label_dirichlet(
      labels,
      clients=10,
      concentration=0.5,
      least=0,
      rng=np.random.default_rng(seed),
    )[:1]
  ]
  assert stats.kstest(shares, stats.beta(0.5, 4.5).cdf).pvalue > 1e-4


def test_who_has_an_even_share_gets_no_more():
  sizes = deal('label_dirichlet', clients=5, concentration=0.5).client_sizes
  assert len(set(sizes)) > 1
  # Over an even share by what one label brought, of about fifty examples.
  assert sizes.max() < 100 + 80


def test_label_dirichlet_draws_again_until_all_have_enough():
  sizes = [
    deal(
      'label_dirichlet', seed=seed, concentration=0.5, min_examples=least
    ).client_sizes.min()
    for seed in range(20)
    for least in (0, 30)
  ]
  assert min(sizes[::2]) < 30 <= min(sizes[1::2])
  with pytest.raises(
    validate.UsageError, match='^--task.min_examples: .*100 draws.*found 71'
  ):
    deal('label_dirichlet', concentration=0.01, min_examples=71)


def _one_by_one(left, weights, size, rng):
  """The definition: draw, and renormalise when a class has run out."""
  left = left.copy()
  taken = np.zeros_like(left)
  for _ in range(size):
    allowed = np.where(left > 0, weights, 0.0)
    if allowed.sum() <= 0.0:
      allowed = left.astype(float)
    chosen = rng.choice(len(left), p=allowed / allowed.sum())
    left[chosen] -= 1
    taken[chosen] += 1
  return taken


@pytest.mark.parametrize(
  'left, weights, size',
  [
    ([2, 3, 4], [0.6, 0.3, 0.1], 5),  # The first class runs out.
    ([1, 1, 9], [0.5, 0.5, 0.0], 4),  # All that are liked run out.
    ([9, 9, 9], [0.2, 0.3, 0.5], 4),  # None runs out.
    ([2, 2, 2], [0.0, 0.0, 1.0], 5),
  ],
)
def test_drawing_together_is_drawing_one_by_one(left, weights, size):
  left, weights = np.array(left), np.array(weights)
  draws = 4_000
  counts = []
  for draw in (by_label._draw_without_replacement, _one_by_one):
    rng = np.random.default_rng(5)
    found = collections.Counter(
      tuple(draw(left, weights, size, rng)) for _ in range(draws)
    )
    counts.append(found)
  outcomes = sorted(counts[0] | counts[1])
  table = np.array([[c[o] for o in outcomes] for c in counts])
  # Rare outcomes are pooled: the test is about expected counts above five.
  rare = table.sum(axis=0) < 20
  table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
  table = table[:, table.sum(axis=0) > 0]
  if table.shape[1] > 1:
    assert stats.chi2_contingency(table)[1] > 1e-4


def test_two_shards_of_mcmahan_are_two_labels_or_a_few_more():
  # 100 clients x 2 shards of 300, from 6,000 of each label: no shard is mixed.
  labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6_000))
  data = deal('shards', labels=labels, clients=100)
  assert set(data.client_sizes) == {600}
  found = [len(one) for one in dealing_test.label_sets(data)]
  assert set(found) == {1, 2}
  assert np.mean(found) == pytest.approx(2 - 19 / 199, abs=0.15)


def test_shards_that_would_be_empty_are_refused():
  with pytest.raises(validate.UsageError, match='^--task.shards_per_client'):
    deal('shards', clients=7, shards_per_client=72)


@pytest.mark.parametrize('clients', [5, 7, 30])
@pytest.mark.parametrize('count', [2, 3, 10])
def test_every_client_has_exactly_so_many_labels(clients, count):
  data = deal('label_count', clients=clients, labels_per_client=count)
  assert {len(one) for one in dealing_test.label_sets(data)} == {count}
  owners = collections.Counter(
    label for one in dealing_test.label_sets(data) for label in one
  )
  assert max(owners.values()) - min(owners.values()) <= 1


def test_examples_of_a_label_are_dealt_evenly_to_its_owners():
  data = deal('label_count', clients=20)
  counts = np.array(
    [np.bincount(data.client(k)['y'], minlength=10) for k in range(20)]
  )
  for column in counts.T:
    own = column[column > 0]
    assert own.max() - own.min() <= 1


def test_labels_go_together_at_random():
  pairs = {
    frozenset(one)
    for seed in range(10)
    for one in dealing_test.label_sets(
      deal('label_count', clients=10, seed=seed)
    )
  }
  assert len(pairs) > 30  # Of 45.


def test_rare_label_has_no_more_owners_than_examples():
  labels = np.concatenate([[0, 0], np.repeat([1, 2, 3], 50)])
  data = deal('label_count', labels=labels, clients=20)
  assert sum(0 in one for one in dealing_test.label_sets(data)) <= 2
  assert {len(one) for one in dealing_test.label_sets(data)} == {2}


@pytest.mark.parametrize(
  'clients, count, allowed',
  [(4, 2, 'at least 3 and at most 10'), (7, 11, 'at least 2 and at most 10')],
)
def test_refuses_a_label_count_that_cannot_be(clients, count, allowed):
  with pytest.raises(
    validate.UsageError, match=f'^--task.labels_per_client: expected {allowed}'
  ):
    deal('label_count', clients=clients, labels_per_client=count)
