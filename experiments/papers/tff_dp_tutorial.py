"""Where noise starts to hurt, and what a larger cohort buys: user-level DP.

Paper:    TensorFlow Federated, tutorial "Differential Privacy in TFF"
          (google-parfait/tensorflow-federated, docs/tutorials/
          federated_learning_with_differential_privacy.ipynb); Andrew et al.
          2021, arXiv:1905.03871.
Differs:  MNIST dealt IID to as many clients as EMNIST digits has writers:
          17 or 18 examples instead of 101 on average, hence four epochs, so
          that a client takes four steps; no zeroing of large updates.
Run:      python -m experiments.sweep --experiment=tff_dp_tutorial
          --output_dir=runs/papers/tff_dp_tutorial
Takes:    25 runs in 10 minutes, one after another on one core of a machine
          that was busy with other work (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(name='mnist', model='two_nn', partition='iid', clients=3383),
  cohort=c.poisson(clients_per_round=120),
  client=c.Client(epochs=4, batch_size=32, learning_rate=0.01),
  server=c.Server(learning_rate=1.0, momentum=0.9),
  privacy=c.Privacy(
    mechanism='gaussian_adaptive',
    noise_multiplier=1.2,
    clip_norm=0.1,
    target_quantile=0.5,
    clip_learning_rate=0.2,
    clipped_count_stddev=6.0,
    delta=1e-5,
    population=3383,
  ),
  rounds=100,
  evaluate_every=5,
)
_NOISE, _COHORT = 'privacy.noise_multiplier', 'cohort.clients_per_round'
SWEEP = design.zipped(
  {
    _COHORT: (50, 50, 50, 50, 120),
    _NOISE: (0.0, 0.5, 0.75, 1.0, 1.2),
    'privacy.clipped_count_stddev': (2.5, 2.5, 2.5, 2.5, 6.0),
  },
  seeds=5,
)
CLAIM = c.Claim(
  epsilon=1.71,
  source='outputs in the notebook, one run each, EMNIST digits',
  rows=(
    c.Row(name='cohort 50, z 0', arm={_NOISE: 0.0}, published=0.805),
    c.Row(name='cohort 50, z 0.5', arm={_NOISE: 0.5}, published=0.770),
    c.Row(name='cohort 50, z 0.75', arm={_NOISE: 0.75}, published=0.709),
    c.Row(name='cohort 50, z 1', arm={_NOISE: 1.0}, published=0.383),
    c.Row(
      name='cohort 120, z 1.2', arm={_NOISE: 1.2}, published=0.796, epsilon=2.0
    ),
  ),
  difference='The order is the same: at cohort 50 each step of noise costs '
  'more than the one before, and cohort 120 at z 1.2 loses little. MNIST is '
  'easier than EMNIST, so all are higher, and z 1 does not diverge in 100 '
  'rounds.',
)
