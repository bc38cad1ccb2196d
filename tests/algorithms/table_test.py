"""Every algorithm of the table: what is declared, refused, built, and equal.

A new algorithm is added to ROWS; the rest follows.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import cohorts
from tests.algorithms import partial_test
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.algorithms import table
from tff_pipeline.client_work import dp_sgd
from tff_pipeline.client_work import protection as protections
from tff_pipeline.engines import state_channel

sgd = tff.learning.optimizers.build_sgdm
_algorithms = tff.learning.algorithms


@dataclasses.dataclass(frozen=True)
class Row:
  """A config of an algorithm and TFF's stock builder of the same.

  Attributes:
    algorithm: Leaves.
    stock: Model function -> process; `None` where TFF has none.
    client: Leaves of the client.
    server: Leaves of the server.
  """

  algorithm: config.Algorithm
  stock: object = None
  client: config.Client = cohorts.CLIENT
  server: config.Server = cohorts.SERVER


def _algorithm(name, **leaves):
  return config.Algorithm(name=name, **leaves)


def _client(**leaves):
  return dataclasses.replace(cohorts.CLIENT, **leaves)


def _process(row, **changes):
  settings = {
    'algorithm': row.algorithm,
    'client': row.client,
    'server': row.server,
  }
  return cohorts.build(**settings | changes)


_ADAPTIVE = {
  'fed_avg_m': (
    config.Server(learning_rate=0.5, momentum=0.9),
    lambda: sgd(0.5, 0.9),
  ),
  'fed_adagrad': (
    config.Server(optimizer='adagrad', learning_rate=0.1, epsilon=1e-3),
    lambda: tff.learning.optimizers.build_adagrad(0.1, epsilon=1e-3),
  ),
  'fed_adam': (
    config.Server(
      optimizer='adam', learning_rate=0.05, beta_2=0.99, epsilon=1e-3
    ),
    lambda: tff.learning.optimizers.build_adam(0.05, beta_2=0.99, epsilon=1e-3),
  ),
  'fed_yogi': (
    config.Server(optimizer='yogi', learning_rate=0.05, epsilon=1e-3),
    lambda: tff.learning.optimizers.build_yogi(0.05, epsilon=1e-3),
  ),
}

ROWS = {
  'fed_avg_weighted': Row(
    _algorithm('fed_avg', weighting='num_examples'),
    lambda fn: _algorithms.build_weighted_fed_avg(fn, sgd(0.1), sgd(1.0)),
  ),
  'fed_avg_uniform': Row(
    _algorithm('fed_avg'),
    lambda fn: _algorithms.build_unweighted_fed_avg(fn, sgd(0.1), sgd(1.0)),
  ),
  **{
    name: Row(
      _algorithm('fed_avg', weighting='num_examples'),
      lambda fn, optimizer=optimizer: _algorithms.build_weighted_fed_avg(
        fn, sgd(0.1), optimizer()
      ),
      server=server,
    )
    for name, (server, optimizer) in _ADAPTIVE.items()
  },
  'fed_avg_scheduled': Row(
    _algorithm('fed_avg', weighting='num_examples'),
    lambda fn: _algorithms.build_weighted_fed_avg_with_optimizer_schedule(
      fn, lambda r: 0.1 * 0.5 ** (tf.cast(r, tf.float32) / 2), sgd, sgd(1.0)
    ),
    client=_client(decay='exponential', decay_rounds=2, decay_factor=0.5),
  ),
  'fed_sgd': Row(
    _algorithm('fed_sgd', weighting='num_examples'),
    lambda fn: _algorithms.build_fed_sgd(fn, sgd(0.5)),
    client=config.Client(batch_size=5, shuffle='off'),
    server=config.Server(learning_rate=0.5),
  ),
  # TFF's stock FedProx pulls the wrong way; see fed_prox_test.
  'fed_prox': Row(
    _algorithm('fed_prox', weighting='num_examples', proximal_strength=0.3)
  ),
  'mime_lite': Row(
    _algorithm('mime_lite', weighting='num_examples'),
    lambda fn: _algorithms.build_weighted_mime_lite(fn, sgd(0.1, 0.9)),
    client=_client(momentum=0.9),
  ),
  'mime_lite_adam': Row(
    _algorithm('mime_lite'),
    lambda fn: _algorithms.build_unweighted_mime_lite(
      fn, tff.learning.optimizers.build_adam(0.01, epsilon=1e-3)
    ),
    client=config.Client(
      epochs=2,
      batch_size=5,
      shuffle='off',
      optimizer='adam',
      learning_rate=0.01,
      epsilon=1e-3,
    ),
  ),
  'q_fed_avg': Row(_algorithm('q_fed_avg', fairness=1.5)),
  'scaffold': Row(_algorithm('scaffold')),
  'scaffold_scheduled': Row(
    _algorithm('scaffold'),
    client=_client(decay='exponential', decay_rounds=2, decay_factor=0.5),
  ),
  'fed_dyn': Row(_algorithm('fed_dyn', regularization_strength=0.3)),
  # Clients remember; references in NumPy in partial_test.
  'fed_per': Row(_algorithm('fed_per', local_layers='1')),
  'fed_rep': Row(
    _algorithm('fed_rep', local_layers='1', local_steps=3),
    client=_client(decay='exponential', decay_rounds=2, decay_factor=0.5),
  ),
  'fed_recon': Row(
    _algorithm(
      'fed_recon',
      local_layers='1',
      local_steps=3,
      local_learning_rate=0.3,
    ),
    lambda fn: partial_test.stock_recon(steps=3, learning_rate=0.3),
    client=_client(epochs=1),
  ),
  'clipped_mean': Row(
    _algorithm('fed_avg', aggregator='clipped_mean', norm_limit=0.2),
    lambda fn: _algorithms.build_unweighted_fed_avg(
      fn,
      sgd(0.1),
      sgd(1.0),
      model_aggregator=tff.aggregators.clipping_factory(
        0.2, tff.aggregators.UnweightedMeanFactory()
      ),
    ),
  ),
  'zeroed_mean': Row(
    _algorithm('fed_avg', aggregator='zeroed_mean', norm_limit=0.3),
    lambda fn: _algorithms.build_unweighted_fed_avg(
      fn,
      sgd(0.1),
      sgd(1.0),
      model_aggregator=tff.aggregators.zeroing_factory(
        0.3, tff.aggregators.UnweightedMeanFactory()
      ),
    ),
  ),
  'adaptive_mean': Row(
    _algorithm('fed_avg', aggregator='adaptive_mean'),
    lambda fn: _algorithms.build_unweighted_fed_avg(
      fn,
      sgd(0.1),
      sgd(1.0),
      model_aggregator=tff.learning.robust_aggregator(weighted=False),
    ),
  ),
  'median': Row(_algorithm('fed_avg', aggregator='median')),
  'trimmed_mean': Row(
    _algorithm('fed_avg', aggregator='trimmed_mean', trimmed_share=0.3)
  ),
  'geometric_median': Row(
    _algorithm(
      'fed_avg',
      aggregator='geometric_median',
      weighting='num_examples',
      weiszfeld_steps=3,
    )
  ),
}
# One of each kind of process stays in the quick suite.
_QUICK = (
  'fed_avg_scheduled',
  'mime_lite',
  'q_fed_avg',
  'scaffold_scheduled',
  'fed_per',
  'geometric_median',
)
each_row = pytest.mark.parametrize(
  'row',
  [
    pytest.param(row, id=name, marks=[] if name in _QUICK else pytest.mark.slow)
    for name, row in ROWS.items()
  ],
)


def test_both_tables_have_the_same_names():
  assert set(config.ALGORITHMS) == set(config.AlgorithmName)
  built = set(table.TABLE) | {config.AlgorithmName.CENTRALIZED}
  assert built == set(config.AlgorithmName)
  assert set(config.AGGREGATORS) == set(config.Aggregator)


def test_every_algorithm_and_aggregator_is_held_equal():
  assert {row.algorithm.name for row in ROWS.values()} == set(table.TABLE)
  found = {row.algorithm.aggregator for row in ROWS.values()}
  assert found == set(config.Aggregator)


@pytest.mark.parametrize('name', table.TABLE)
def test_row_declares_its_leaves_and_releases(name):
  own = {
    field.name
    for field in dataclasses.fields(config.Algorithm)
    if (field.metadata['rule'].used_by or ('', ()))[0] == 'name'
    and name in field.metadata['rule'].used_by[1]
  }
  assert set(table.TABLE[name].leaves) == own
  assert 'arXiv' in config.ALGORITHMS[name].paper
  assert config.ALGORITHMS[name].releases


def _private(mechanism):
  leaves = {}
  if mechanism is not config.Mechanism.NONE:
    leaves = {
      'noise_multiplier': 1.0,
      'clip_norm': 1.0,
      'delta': 1e-4,
      'population': 100,
    }
  if mechanism is config.Mechanism.GAUSSIAN_ADAPTIVE:
    leaves |= {
      'target_quantile': 0.5,
      'clip_learning_rate': 0.2,
      'clipped_count_stddev': 5.0,
    }
  return config.Privacy(mechanism=mechanism, **leaves)


def _experiment(row, **changes):
  return config.Experiment(
    **{
      'task': config.Task(name='digits', partition='iid', clients=100),
      'cohort': config.poisson(10),
      'client': row.client,
      'server': row.server,
      'algorithm': row.algorithm,
      'privacy': config.no_privacy(),
      'rounds': 3,
    }
    | changes
  )


# What shapes the model and is more than one clipped and noised sum.
_REFUSED = {
  'fed_sgd': {'dp_sgd'},
  'mime_lite': {'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd'},
  'mime_lite_adam': {'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd'},
  'q_fed_avg': {'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd'},
  'scaffold': {'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd'},
  'scaffold_scheduled': {'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd'},
  'fed_dyn': {'gaussian', 'gaussian_adaptive', 'local', 'dp_sgd'},
  # Steps on local layers would not be priced; see also partial_test.
  'fed_rep': {'dp_sgd'},
  'fed_recon': {'dp_sgd'},
  **{
    name: {'gaussian', 'gaussian_adaptive', 'local'}
    for name in (
      *('clipped_mean', 'zeroed_mean', 'adaptive_mean'),
      *('median', 'trimmed_mean', 'geometric_median'),
    )
  },
}


@pytest.mark.parametrize('mechanism', config.Mechanism)
@pytest.mark.parametrize('name', ROWS)
def test_mechanism_is_refused_with_the_reason_or_accepted(name, mechanism):
  row = ROWS[name]
  uniform = dataclasses.replace(row.algorithm, weighting='uniform')
  changes = {'algorithm': uniform, 'privacy': _private(mechanism)}
  if str(mechanism) not in _REFUSED.get(name, set()):
    assert _experiment(row, **changes)
    return
  with pytest.raises(validate.UsageError) as refused:
    _experiment(row, **changes)
  message = str(refused.value)
  assert message.startswith('--privacy.mechanism: expected none')
  chosen = (row.algorithm.name, row.algorithm.aggregator)
  assert any(f'={c}: ' in message for c in chosen)


@pytest.mark.parametrize(
  'name, changes, flag',
  [
    ('fed_sgd', {'client': cohorts.CLIENT}, 'client.epochs'),
    (
      'fed_sgd',
      {'client': config.Client(batch_size=5, learning_rate=0.1)},
      'client.learning_rate',
    ),
    (
      'fed_sgd',
      {'client': config.Client(batch_size=5, optimizer='adam')},
      'client.optimizer',
    ),
    (
      'fed_avg_uniform',
      {'client': config.Client(batch_size=5)},
      'client.learning_rate',
    ),
    (
      'q_fed_avg',
      {'client': _client(warmup_rounds=3)},
      'client.warmup_rounds',
    ),
    (
      'q_fed_avg',
      {
        'algorithm': _algorithm(
          'q_fed_avg', fairness=1, weighting='num_examples'
        )
      },
      'algorithm.weighting',
    ),
    ('q_fed_avg', {'client': _client(momentum=0.9)}, 'client.momentum'),
    (
      'median',
      {
        'algorithm': _algorithm(
          'fed_avg', aggregator='median', weighting='num_examples'
        )
      },
      'algorithm.weighting',
    ),
    (
      'scaffold',
      {'algorithm': _algorithm('scaffold', weighting='num_examples')},
      'algorithm.weighting',
    ),
    ('scaffold', {'client': _client(momentum=0.9)}, 'client.momentum'),
    ('scaffold', {'client': _client(optimizer='adam')}, 'client.optimizer'),
    (
      'scaffold',
      {'algorithm': _algorithm('scaffold', aggregator='median')},
      'algorithm.aggregator',
    ),
    (
      'fed_dyn',
      {'server': config.Server(learning_rate=0.5)},
      'server.learning_rate',
    ),
    (
      'fed_dyn',
      {'server': config.Server(learning_rate=1.0, momentum=0.9)},
      'server.momentum',
    ),
    (
      'fed_dyn',
      {'compression': config.Compression(name='top_k', kept_share=0.1)},
      'compression.name',
    ),
    (
      'mime_lite',
      {'algorithm': _algorithm('mime_lite', aggregator='median')},
      'algorithm.aggregator',
    ),
  ],
)
def test_leaf_that_does_not_fit_is_refused(name, changes, flag):
  with pytest.raises(validate.UsageError, match=f'^--{flag}: expected '):
    _experiment(ROWS[name], **changes)


# Builders refuse by themselves what would go wrong without a word.


@pytest.mark.parametrize(
  'name',
  ['fed_sgd', 'mime_lite', 'scaffold', 'fed_dyn', 'fed_rep', 'fed_recon'],
)
def test_noise_on_steps_is_not_dropped_silently(name):
  noisy = dataclasses.replace(protections.UNPROTECTED, gradient=dp_sgd.gradient)
  with pytest.raises(ValueError, match='no noise on (local )?steps'):
    _process(ROWS[name], protection=noisy)


@pytest.mark.parametrize('name', ['q_fed_avg', 'scaffold', 'fed_dyn'])
def test_weights_by_examples_are_not_dropped_silently(name):
  row = ROWS[name]
  weighted = dataclasses.replace(row.algorithm, weighting='num_examples')
  with pytest.raises(ValueError, match='uniform weighting'):
    _process(row, algorithm=weighted)


@pytest.mark.parametrize('name', ['scaffold', 'fed_dyn'])
def test_mean_over_nobody_is_refused(name):
  with pytest.raises(ValueError, match='Expected a population of'):
    _process(ROWS[name], population=0)


def test_declared_client_state_is_the_one_that_is_kept():
  for name in table.TABLE:
    row = next(r for r in ROWS.values() if r.algorithm.name is name)
    channel = state_channel.find(_process(row))
    declared = config.ALGORITHMS[name].client_state
    assert (channel is None) == (declared is None), name


@each_row
def test_engines_and_stock_builder_agree(row):
  process = _process(row)
  ours = cohorts.run(process, client=row.client)
  cohorts.assert_moved(ours)
  reference = cohorts.run(
    process, client=row.client, engine=config.EngineName.TFF_RUNTIME
  )
  cohorts.assert_equal(ours, reference)
  for (_, one), (_, other) in zip(ours, reference, strict=True):
    train = one['client_work']['train']
    assert train.keys() == other['client_work']['train'].keys()
    for name, value in train.items():
      np.testing.assert_allclose(
        value, other['client_work']['train'][name], rtol=1e-4, atol=1e-6
      )
  if row.stock is not None:
    # TFF's own means divide by the realised weight: no empty cohort.
    some = [c for c in cohorts.COHORTS if c]
    ours = cohorts.run(process, client=row.client, cohorts=some)
    stock = cohorts.run(
      row.stock(cohorts.stock_model), client=row.client, cohorts=some
    )
    cohorts.assert_equal(ours, stock)
