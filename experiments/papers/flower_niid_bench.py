"""Flower's NIID-Bench rows for MNIST: label skew in ten silos.

Paper:    Li, Diao, Chen, He. Federated learning on non-IID data silos. ICDE
          2022. arXiv:2102.02079; as reproduced in Flower's baselines/niid_bench
          (README.md, commit 1599d01 of adap/flower).
Differs:  30 rounds of 50 (FedAvg with 2 labels: 50, with --rounds=50); no
          weight decay; mu 0.01, its default, where theirs was tuned; equal
          weights and no momentum on clients under SCAFFOLD.
Run:      python -m experiments.sweep --experiment=flower_niid_bench
          --output_dir=runs/papers/flower_niid_bench
Takes:    25 s a round on one busy core (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(
    name='mnist',
    model='lenet5',
    partition='label_dirichlet',
    clients=10,
    concentration=0.5,
    min_examples=10,
  ),
  cohort=c.full(),
  client=c.Client(epochs=10, batch_size=64, learning_rate=0.01),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=30,
)
_PARTITION, _NAME = 'task.partition', 'algorithm.name'
SWEEP = design.Sweep(
  axes=(
    {
      _PARTITION: ('label_dirichlet', 'label_count'),
      'task.labels_per_client': (None, 2),
    },
    {
      _NAME: ('fed_avg', 'fed_prox', 'scaffold'),
      'algorithm.proximal_strength': (None, 0.01, None),
      'algorithm.weighting': (None, None, 'uniform'),
      'client.momentum': (0.9, 0.9, None),
    },
  )
)
CLAIM = c.Claim(
  epsilon=float('inf'),
  source='table of that README, seed 42',
  difference='Half a point below or less under Dirichlet skew, in 30 rounds of '
  '50. The partition decides: dealt as in Hsu et al., whose concentration is '
  'of all labels together, FedAvg had 0.981 after 30 rounds and 0.983 after '
  '50. With 2 labels FedAvg is a point above (after 30 rounds: 0.970): here '
  'each label has two owners, there one to several by chance. FedProx and '
  'SCAFFOLD are below after 30 rounds, and still rising; under SCAFFOLD '
  'clients have no momentum here.',
  rows=tuple(
    c.Row(
      name=f'{data}, {how}',
      arm={_PARTITION: partition, _NAME: name},
      published=published,
    )
    for data, partition, how, name, published in (
      ('Dirichlet .5', 'label_dirichlet', 'FedAvg', 'fed_avg', 0.989),
      ('Dirichlet .5', 'label_dirichlet', 'FedProx', 'fed_prox', 0.990),
      ('Dirichlet .5', 'label_dirichlet', 'SCAFFOLD', 'scaffold', 0.990),
      ('2 labels', 'label_count', 'FedAvg', 'fed_avg', 0.966),
      ('2 labels', 'label_count', 'FedProx', 'fed_prox', 0.967),
      ('2 labels', 'label_count', 'SCAFFOLD', 'scaffold', 0.966),
    )
  ),
)
