"""Rounds of FedAvg with the CNN until 99 % on MNIST, IID and two shards each.

Paper:    McMahan, Moore, Ramage, Hampson, Aguera y Arcas. Communication-
          efficient learning of deep networks from decentralized data. AISTATS
          2017. arXiv:1602.05629, Table 2: E=5, B=10, C=0.1.
Differs:  Three learning rates of the paper's grid (factor 10^(1/3)); first
          round at the target, where the paper interpolates.
Run:      python -m experiments.sweep --experiment=mcmahan_2017_cnn
          --stop_at_accuracy=0.99 --output_dir=runs/papers/mcmahan_2017_cnn
Takes:    20 s a round on one core (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(
    name='mnist',
    model='cnn',
    partition='shards',
    clients=100,
    shards_per_client=2,
  ),
  cohort=c.fixed_size(clients_per_round=10),
  client=c.Client(epochs=5, batch_size=10, learning_rate=0.1),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=300,
)
_RATE = 'client.learning_rate'
SWEEP = design.Sweep(
  axes=(
    {'task.partition': ('iid', 'shards'), 'rounds': (40, 300)},
    {_RATE: (0.0464, 0.1, 0.215)},
  )
)
CLAIM = c.Claim(
  epsilon=float('inf'),
  difference='IID as in the paper, at the rate that is best on a grid: 0.1 '
  'takes 27 rounds, and 0.0464 more than 40. Another public reproduction '
  '(fedavgR, in R) has 26. Non-IID, one rate, 0.1, went to the end; at 0.215 '
  'accuracy was level with it (0.978 in rounds 50 to 60, best 0.986) when it '
  'was stopped. There it swings by a point from round to round with ten of '
  'such clients, so that the first round at the target is a matter of luck: '
  'in the run at 0.1 no other one followed in six rounds.',
  source='Table 2; Table 1 has 18 and 206 for the same setting',
  rows=(
    c.Row(
      name='IID',
      arm={'task.partition': 'iid'},
      target=0.99,
      published=20,
      tuned=(_RATE,),
    ),
    c.Row(
      name='non-IID (two shards of 300)',
      arm={'task.partition': 'shards'},
      target=0.99,
      published=229,
      tuned=(_RATE,),
    ),
  ),
)
