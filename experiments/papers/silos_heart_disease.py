"""Example-level DP-SGD on heart disease in four hospitals, pooled, and alone.

Paper:    None to compare with; data of Janosi et al. 1988 (UCI), method of
          Abadi et al. 2016, arXiv:1607.00133, in each hospital.
Differs:  In nothing. All models are tested on the held-out patients of all
          four hospitals.
Run:      python -m experiments.sweep --experiment=silos_heart_disease
          --output_dir=runs/papers/silos_heart_disease
Takes:    about 15 s a run on one busy core, 54 runs (2026-11-24).
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
_SIZE = 'privacy.population'
_WHO = {
  'algorithm.name': ('centralized', 'fed_avg', *['centralized'] * 4),
  'server.learning_rate': (None, 1.0, *[None] * 4),
  _SIZE: (_EXAMPLES, 4, *_HOSPITALS),
  'task.only_client': (None, None, 0, 1, 2, 3),
}
_PRICES = {_TARGET: (1.0, 4.0, None), _NOISE: (None, None, 0.0)}
SWEEP = design.Sweep(axes=(_WHO, _PRICES), seeds=3)
CLAIM = c.Claim(
  epsilon=4.0,
  source='none: hospitals are compared with each other',
  rows=tuple(
    c.Row(name=f'{price}, {who}', arm={_SIZE: size} | arm)
    for price, arm in (
      ('ε 1', {_TARGET: 1.0}),
      ('ε 4', {_TARGET: 4.0}),
      ('no noise', {_NOISE: 0.0}),
    )
    for who, size in (
      ('pooled', _EXAMPLES),
      ('four hospitals together', 4),
      *((f'hospital {n} alone ({s})', s) for n, s in enumerate(_HOSPITALS)),
    )
  ),
)
