"""Example-level DP-SGD on smartwatch data in three groups of people.

Paper:    None to compare with; data of Burns et al. 2018, arXiv:1802.01489,
          method of Abadi et al. 2016, arXiv:1607.00133, in each group.
Differs:  In nothing. Ten people in groups of 4, 3 and 3; all models are tested
          on the held-out windows of all ten.
Run:      python -m experiments.sweep --experiment=silos_har
          --output_dir=runs/papers/silos_har
Takes:    1 s a round on one busy core (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

_EXAMPLES, _GROUPS = 3691, (1342, 1179, 1170)
CONFIG = c.Experiment(
  task=c.Task(name='har', partition='grouped', clients=3),
  cohort=c.full(),
  client=c.Client(epochs=1, batch_size=64, learning_rate=0.5),
  server=c.Server(),
  algorithm=c.Algorithm(name='centralized', batches='poisson'),
  privacy=c.Privacy(
    mechanism='dp_sgd',
    target_epsilon=8.0,
    clip_norm=1.0,
    delta=1e-4,
    population=_EXAMPLES,
  ),
  rounds=20,
)
_TARGET, _NOISE = 'privacy.target_epsilon', 'privacy.noise_multiplier'
_SIZE, _RATE = 'privacy.population', 'client.sampling_rate'
_WHO = {
  'algorithm.name': ('centralized', *['fed_avg'] * 2, *['centralized'] * 3),
  'server.learning_rate': (None, *[1.0] * 2, *[None] * 3),
  _RATE: (None, 0.05, *[None] * 4),
  _SIZE: (_EXAMPLES, 3, 3, *_GROUPS),
  'task.only_client': (*[None] * 3, 0, 1, 2),
}
_PRICES = {_TARGET: (2.0, 8.0, None), _NOISE: (None, None, 0.0)}
SWEEP = design.Sweep(axes=(_WHO, _PRICES), seeds=3)
CLAIM = c.Claim(
  epsilon=8.0,
  source='none: groups are compared with each other',
  difference='With Poisson batches the groups together do a point better '
  'than the best of them alone at ε 2, and no better than it at ε 8 or '
  'without noise, four to seven points below the pooled data: averaging '
  'costs that, noise does not. With shuffled batches, which amplify nothing, '
  'ε 2 takes a noise multiplier of 7.8 instead of 1.9, and 25 points.',
  rows=tuple(
    c.Row(name=f'{price}, {who}', arm={_SIZE: size, _RATE: rate} | arm)
    for price, arm in (
      ('ε 2', {_TARGET: 2.0}),
      ('ε 8', {_TARGET: 8.0}),
      ('no noise', {_NOISE: 0.0}),
    )
    for who, size, rate in (
      ('pooled', _EXAMPLES, None),
      ('three groups (Poisson batches)', 3, 0.05),
      ('three groups (shuffled batches)', 3, None),
      *((f'group {n} alone ({s})', s, None) for n, s in enumerate(_GROUPS)),
    )
  ),
)
