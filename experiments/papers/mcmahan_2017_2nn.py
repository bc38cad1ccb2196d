"""Rounds of FedAvg with the 2NN until 97 % on MNIST, IID and two shards each.

Paper:    McMahan, Moore, Ramage, Hampson, Aguera y Arcas. Communication-
          efficient learning of deep networks from decentralized data. AISTATS
          2017. arXiv:1602.05629, Table 1: E=1, B=10, C=0.1.
Differs:  Four learning rates of the paper's grid (factor 10^(1/3)); first round
          at the target, where the paper interpolates.
Run:      python -m experiments.sweep --experiment=mcmahan_2017_2nn
          --output_dir=runs/papers/mcmahan_2017_2nn
Takes:    0.1 s a round on one busy core (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(
    name='mnist',
    model='two_nn',
    partition='shards',
    clients=100,
    shards_per_client=2,
  ),
  cohort=c.fixed_size(clients_per_round=10),
  client=c.Client(epochs=1, batch_size=10, learning_rate=0.1),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=400,
  checkpoint_every=50,
)
_RATE = 'client.learning_rate'
SWEEP = design.Sweep(
  axes=(
    {_RATE: (0.0464, 0.1, 0.215, 0.464)},
    {'task.partition': ('iid', 'shards'), 'rounds': (100, 400)},
  ),
  seeds=3,
)
CLAIM = c.Claim(
  epsilon=float('inf'),
  source='Table 1',
  rows=(
    c.Row(
      name='IID',
      arm={'task.partition': 'iid'},
      target=0.97,
      published=87,
      tuned=(_RATE,),
    ),
    c.Row(
      name='non-IID (two shards of 300)',
      arm={'task.partition': 'shards'},
      target=0.97,
      published=664,
      tuned=(_RATE,),
    ),
  ),
  difference='Ours takes fewer rounds by a factor of about three, with one '
  'local step as well: B=inf, IID, takes 528 here (rate 0.464) where the paper '
  'has 1474. So the cause is not in local training or averaging, whose process '
  'equals that of TFF to float tolerance, but in model, pixels or rate. Other '
  'initial weights (truncated normal of 0.1, uniform of 0.05) and standardized '
  'pixels gave 28 to 54 rounds at rates of 0.1 and 0.215 (IID, one seed each), '
  'so they do not explain it; inverted pixels did not get there in 100. The '
  'best rate is inside our grid. At its lower end, 0.0464, IID takes 82, 96 '
  'and 89: as many as the paper, so that our guess is a lower rate there.',
)
