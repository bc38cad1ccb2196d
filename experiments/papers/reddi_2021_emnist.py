"""Five server optimizers on EMNIST characters: not run here.

Paper:    Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
          Adaptive federated optimization. ICLR 2021. arXiv:2003.00295; learning
          rates of google-research/federated, optimization/docs.
Differs:  Adam and Yogi are TFF's, which correct the bias of both moments.
Run:      python -m experiments.sweep --experiment=reddi_2021_emnist
          --output_dir=runs/papers/reddi_2021_emnist
Takes:    not run here: it needs a download and a bigger machine.
"""

from experiments.papers import _reddi_2021
from tff_pipeline import config as c

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
SWEEP = _reddi_2021.sweep(
  client_rates=(0.0316, 0.0316, 0.0316, 0.0316, 0.1),
  server_rates=(0.1, 0.00316, 0.00316, 0.316, 1.0),
  epsilons=(0.01, 0.0001, 0.0001),
)
CLAIM = _reddi_2021.claim(
  source='Table 1, recalled, not looked up again',
  published=(0.851, 0.856, 0.855, 0.852, 0.849),
)
