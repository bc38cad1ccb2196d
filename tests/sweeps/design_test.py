import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory
from tff_pipeline.sweeps import design

NOISE = 'privacy.noise_multiplier'
CLIP = 'privacy.clip_norm'


def _plan(sweep, **changes):
  return design.plan(sweep, synthetic_runs.build(**changes))


def test_grid_is_every_combination_seed_by_seed():
  runs = _plan(design.grid({NOISE: (0.5, 1.0), CLIP: (0.1, 0.2)}, seeds=2))
  found = [
    (
      run.experiment.seed,
      run.experiment.privacy.noise_multiplier,
      run.experiment.privacy.clip_norm,
    )
    for run in runs
  ]
  assert found == [
    (seed, noise, clip)
    for seed in (0, 1)
    for noise in (0.5, 1.0)
    for clip in (0.1, 0.2)
  ]
  assert len({run.directory for run in runs}) == 8
  assert runs[0].directory == 'noise_multiplier=0.5,clip_norm=0.1/seed=0'


def test_zipped_leaves_vary_together():
  runs = _plan(design.zipped({NOISE: (0.5, 1.0), CLIP: (0.1, 0.2)}))
  found = [
    (r.experiment.privacy.noise_multiplier, r.experiment.privacy.clip_norm)
    for r in runs
  ]
  assert found == [(0.5, 0.1), (1.0, 0.2)]


def test_a_value_of_none_leaves_the_leaf_as_it_is():
  adaptive = {
    'privacy.mechanism': ('gaussian', 'gaussian_adaptive'),
    'privacy.target_quantile': (None, 0.5),
    'privacy.clip_learning_rate': (None, 0.2),
    'privacy.clipped_count_stddev': (None, 1.0),
    CLIP: (None, 0.1),
  }
  fixed, moving = _plan(design.zipped(adaptive))
  assert fixed.arm == 'mechanism=gaussian'
  assert fixed.experiment == synthetic_runs.build()
  assert fixed.arguments() == ['--privacy.mechanism=gaussian', '--seed=0']
  assert moving.experiment.privacy.target_quantile == 0.5
  assert moving.experiment.privacy.clip_norm == 0.1
  assert moving.arm.endswith('clipped_count_stddev=1,clip_norm=0.1')


def test_arms_differ_in_nothing_but_their_leaves():
  runs = _plan(design.grid({NOISE: (0.0, 0.5, 1.0)}, seeds=2), seed=5)
  for run in runs:
    values = config.to_dict(run.experiment)
    values['privacy'].pop('noise_multiplier')
    expected = config.to_dict(synthetic_runs.build(seed=values['seed']))
    expected['privacy'].pop('noise_multiplier')
    assert values == expected
  assert [run.experiment.seed for run in runs] == [5, 5, 5, 6, 6, 6]


def test_every_leaf_can_be_swept():
  values = {
    'client.optimizer': ('sgd', 'adam'),
    'rounds': (2, 3),
    'task.model': ('mlp', 'softmax_regression'),
    'cohort.clients_per_round': (5, 6),
  }
  for leaf, both in values.items():
    runs = _plan(design.grid({leaf: both}))
    assert len({str(config.to_dict(r.experiment)) for r in runs}) == 2, leaf


def test_swept_target_takes_the_place_of_the_noise():
  runs = _plan(design.grid({'privacy.target_epsilon': (1.0, 2.0)}))
  assert [r.experiment.privacy.target_epsilon for r in runs] == [1.0, 2.0]
  assert runs[0].experiment.privacy.noise_multiplier is None


def test_seed_is_a_leaf_like_others():
  runs = _plan(design.grid({'seed': (3, 9)}))
  assert [run.directory for run in runs] == ['as_is/seed=3', 'as_is/seed=9']


def test_seeds_alone_are_a_sweep():
  runs = _plan(design.Sweep(axes=(), seeds=3))
  assert [run.directory for run in runs] == [
    f'as_is/seed={seed}' for seed in range(3)
  ]


def test_names_are_folders_and_tell_apart():
  runs = _plan(
    design.grid(
      {
        'client.learning_rate': (0.1,),
        'server.learning_rate': (1e-3,),
        'task.model': ('my.models:build', 'a/b:c'),
      }
    )
  )
  assert [run.arm for run in runs] == [
    'client.learning_rate=0.1,server.learning_rate=0.001,model=my.models:build',
    'client.learning_rate=0.1,server.learning_rate=0.001,model=a_b:c',
  ]


def test_different_runs_never_share_a_directory():
  wanted = design.grid({'client.learning_rate': (0.1234567, 0.12345671)})
  runs = _plan(wanted)
  assert len({run.directory for run in runs}) == 2


BAD = [
  (lambda: design.grid({'privacy.noise': (1.0,)}), 'an unknown one'),
  (lambda: design.grid({NOISE: ()}), 'at least one value'),
  (lambda: design.grid({NOISE: (1.0, 1.0)}), 'values that differ'),
  (lambda: design.grid({NOISE: (-1.0,)}), '--sweep.privacy.noise_multiplier'),
  (lambda: design.grid({'client.optimizer': ('smg',)}), 'Did you mean sgd'),
  (lambda: design.zipped({NOISE: (0.5, 1.0), CLIP: (0.1,)}), '2 values'),
  (lambda: design.grid({NOISE: (1.0,)}, seeds=0), '--seeds'),
  (lambda: design.grid({'seed': (1, 2)}, seeds=2), 'beside --sweep.seed'),
  (
    lambda: design.Sweep(axes=({NOISE: (1.0,)}, {NOISE: (2.0,)})),
    'two axes',
  ),
]


@pytest.mark.parametrize('build, message', BAD)
def test_bad_sweep_is_refused(build, message):
  with pytest.raises(validate.UsageError, match=message):
    build()


def test_invalid_arm_is_named():
  sweep = design.grid({'cohort.clients_per_round': (6, 61)})
  with pytest.raises(validate.UsageError, match='arm clients_per_round=61'):
    _plan(sweep)


def test_given_leaf_is_not_swept_as_well():
  sweep = design.grid({NOISE: (1.0,)})
  with pytest.raises(validate.UsageError, match='beside --sweep'):
    design.plan(sweep, synthetic_runs.build(), given={NOISE: 2.0})


def _started(folder, runs):
  folder.mkdir()
  record = design.record(runs, command=[])
  run_directory.write_json(folder / 'sweep.json', record)


def test_same_sweep_and_a_larger_one_continue(tmp_path):
  folder = tmp_path / 'sweep'
  design.check_same(folder, _plan(design.grid({NOISE: (1.0,)})))
  _started(folder, _plan(design.grid({NOISE: (1.0,)})))
  design.check_same(folder, _plan(design.grid({NOISE: (1.0,)})))
  design.check_same(folder, _plan(design.grid({NOISE: (0.5, 1.0)}, seeds=3)))


@pytest.mark.parametrize(
  'sweep, changes',
  [
    (design.grid({NOISE: (0.5,)}), {}),
    (design.grid({NOISE: (1.0,)}), {'rounds': 7}),
  ],
)
def test_another_sweep_is_refused(tmp_path, sweep, changes):
  folder = tmp_path / 'sweep'
  _started(folder, _plan(design.grid({NOISE: (1.0,)})))
  with pytest.raises(validate.UsageError, match='noise_multiplier=1/seed=0'):
    design.check_same(folder, _plan(sweep, **changes))


def test_foreign_directory_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with pytest.raises(validate.UsageError, match=r'thesis\.tex'):
    design.check_same(tmp_path, _plan(design.grid({NOISE: (1.0,)})))
