"""Five server optimizers on the next word of StackOverflow: not run here.

Paper:    Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
          Adaptive federated optimization. ICLR 2021. arXiv:2003.00295; learning
          rates of google-research/federated, optimization/docs.
Differs:  Adam and Yogi are TFF's, which correct the bias of both moments.
Run:      python -m experiments.sweep
          --experiment=reddi_2021_stackoverflow_words
          --output_dir=runs/papers/reddi_2021_stackoverflow_words
Takes:    not run here: it needs a download and a bigger machine.
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

CONFIG = c.Experiment(
  task=c.Task(name='stackoverflow_words'),
  cohort=c.fixed_size(clients_per_round=50),
  client=c.Client(batch_size=16, learning_rate=0.316, max_examples=1000),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=1500,
  evaluate_every=100,
)
_OPTIMIZER, _MOMENTUM = 'server.optimizer', 'server.momentum'
SWEEP = design.zipped(
  {
    _OPTIMIZER: ('adagrad', 'adam', 'yogi', 'sgd', 'sgd'),
    'client.learning_rate': (0.316, 0.316, 0.316, 0.316, 0.316),
    'server.learning_rate': (0.0316, 0.01, 0.01, 1.0, 1.0),
    'server.epsilon': (0.0001, 1e-05, 1e-05, None, None),
    _MOMENTUM: (None, None, None, 0.9, None),
  }
)
CLAIM = c.Claim(
  epsilon=float('inf'),
  source='none looked up',
  rows=tuple(
    c.Row(
      name=name,
      arm={_OPTIMIZER: optimizer, _MOMENTUM: momentum},
      published=published,
    )
    for name, optimizer, momentum, published in (
      ('FedAdagrad', 'adagrad', None, None),
      ('FedAdam', 'adam', None, None),
      ('FedYogi', 'yogi', None, None),
      ('FedAvgM', 'sgd', 0.9, None),
      ('FedAvg', 'sgd', None, None),
    )
  ),
)
