"""Example-level DP-SGD on heart disease in four hospitals, pooled, and alone.

Paper:    None to compare with; data of Janosi et al. 1988 (UCI), method of
          Abadi et al. 2016, arXiv:1607.00133, in each hospital.
Differs:  In nothing. Measurements are standardized by un-noised statistics of
          all hospitals, also for those alone, which no epsilon here covers. All
          models are tested on the held-out patients of all four hospitals.
Run:      python -m experiments.sweep --experiment=silos_heart_disease
          --output_dir=runs/papers/silos_heart_disease
Takes:    about 15 s a run on one busy core, 63 runs (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

_EXAMPLES, _HOSPITALS = 608, (201, 194, 81, 132)
CONFIG = c.Experiment(
  task=c.Task(name='heart_disease'),
  cohort=c.full(),
  client=c.Client(epochs=1, batch_size=32, learning_rate=0.3),
  server=c.Server(),
  algorithm=c.Algorithm(name='centralized', batches='poisson'),
  privacy=c.Privacy(
    mechanism='dp_sgd',
    target_epsilon=4.0,
    clip_norm=1.0,
    delta=1e-3,
    population=_EXAMPLES,
  ),
  rounds=20,
)
_TARGET, _NOISE = 'privacy.target_epsilon', 'privacy.noise_multiplier'
_SIZE, _RATE = 'privacy.population', 'client.sampling_rate'
_WHO = {
  'algorithm.name': ('centralized', *['fed_avg'] * 2, *['centralized'] * 4),
  'server.learning_rate': (None, *[1.0] * 2, *[None] * 4),
  _RATE: (None, 0.2, *[None] * 5),
  _SIZE: (_EXAMPLES, 4, 4, *_HOSPITALS),
  'task.only_client': (*[None] * 3, 0, 1, 2, 3),
}
_PRICES = {_TARGET: (1.0, 4.0, None), _NOISE: (None, None, 0.0)}
SWEEP = design.Sweep(axes=(_WHO, _PRICES), seeds=3)
CLAIM = c.Claim(
  epsilon=4.0,
  source='none: hospitals are compared with each other',
  difference='With Poisson batches the hospitals together do better than each '
  'alone at both ε. With shuffled ones, which amplify nothing, ε 1 takes a '
  'noise multiplier of 11.5 instead of 5.3, and hospital 1 alone does better.',
  rows=tuple(
    c.Row(name=f'{price}, {who}', arm={_SIZE: size, _RATE: rate} | arm)
    for price, arm in (
      ('ε 1', {_TARGET: 1.0}),
      ('ε 4', {_TARGET: 4.0}),
      ('no noise', {_NOISE: 0.0}),
    )
    for who, size, rate in (
      ('pooled', _EXAMPLES, None),
      ('four hospitals (Poisson batches)', 4, 0.2),
      ('four hospitals (shuffled batches)', 4, None),
      *(
        (f'hospital {n} alone ({s})', s, None) for n, s in enumerate(_HOSPITALS)
      ),
    )
  ),
)
