"""Five server optimizers on Shakespeare.

Paper:    Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
          Adaptive federated optimization. ICLR 2021. arXiv:2003.00295; learning
          rates of google-research/federated, optimization/docs.
Differs:  100 rounds of 1,200; 1,082 roles of a file of our own, where TFF
          has 715, so accuracies are not those of the same data.
Run:      python -m experiments.sweep --experiment=reddi_2021_shakespeare
          --output_dir=runs/papers/reddi_2021_shakespeare
Takes:    6 s a round and 22 s an evaluation on one busy core (2026-11-24).
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(name='shakespeare'),
  cohort=c.fixed_size(clients_per_round=10),
  client=c.Client(batch_size=4, learning_rate=1.0),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=100,
  evaluate_every=25,
)
_OPTIMIZER, _MOMENTUM = 'server.optimizer', 'server.momentum'
SWEEP = design.zipped(
  {
    _OPTIMIZER: ('adagrad', 'adam', 'yogi', 'sgd', 'sgd'),
    'client.learning_rate': (1.0, 1.0, 1.0, 1.0, 1.0),
    'server.learning_rate': (0.316, 0.01, 0.01, 0.316, 1.0),
    'server.epsilon': (0.1, 0.001, 0.001, None, None),
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
      ('FedAdagrad', 'adagrad', None, 0.575),
      ('FedAdam', 'adam', None, 0.57),
      ('FedYogi', 'yogi', None, 0.572),
      ('FedAvgM', 'sgd', 0.9, 0.573),
      ('FedAvg', 'sgd', None, 0.569),
    )
  ),
)
