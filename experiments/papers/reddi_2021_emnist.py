"""Five server optimizers on EMNIST characters: not run here.

Paper:    Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
          Adaptive federated optimization. ICLR 2021. arXiv:2003.00295; learning
          rates of google-research/federated, optimization/docs.
Differs:  Adam and Yogi are TFF's, which correct the bias of both moments.
Run:      python -m experiments.sweep --experiment=reddi_2021_emnist
          --output_dir=runs/papers/reddi_2021_emnist
Takes:    not run here: it needs a download and a bigger machine.
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(name='emnist_characters'),
  cohort=c.fixed_size(clients_per_round=10),
  client=c.Client(batch_size=20, learning_rate=0.1),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=1500,
  evaluate_every=25,
)
_OPTIMIZER, _MOMENTUM = 'server.optimizer', 'server.momentum'
SWEEP = design.zipped(
  {
    _OPTIMIZER: ('adagrad', 'adam', 'yogi', 'sgd', 'sgd'),
    'client.learning_rate': (0.0316, 0.0316, 0.0316, 0.0316, 0.1),
    'server.learning_rate': (0.1, 0.00316, 0.00316, 0.316, 1.0),
    'server.epsilon': (0.01, 0.0001, 0.0001, None, None),
    _MOMENTUM: (None, None, None, 0.9, None),
  }
)
CLAIM = c.Claim(
  epsilon=float('inf'),
  source='Table 1, recalled, not looked up again',
  rows=tuple(
    c.Row(
      name=name,
      arm={_OPTIMIZER: optimizer, _MOMENTUM: momentum},
      published=published,
    )
    for name, optimizer, momentum, published in (
      ('FedAdagrad', 'adagrad', None, 0.851),
      ('FedAdam', 'adam', None, 0.856),
      ('FedYogi', 'yogi', None, 0.855),
      ('FedAvgM', 'sgd', 0.9, 0.852),
      ('FedAvg', 'sgd', None, 0.849),
    )
  ),
)
