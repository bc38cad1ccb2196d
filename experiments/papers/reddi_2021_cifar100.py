"""Five server optimizers on CIFAR-100: not run here.

Paper:    Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
          Adaptive federated optimization. ICLR 2021. arXiv:2003.00295; learning
          rates of google-research/federated, optimization/docs.
Differs:  No weight decay; Adam and Yogi are TFF's, which correct the bias of
          both moments.
Run:      python -m experiments.sweep --experiment=reddi_2021_cifar100
          --output_dir=runs/papers/reddi_2021_cifar100
Takes:    not run here: it needs a download and a bigger machine.
"""

from experiments.papers import _reddi_2021
from tff_pipeline import config as c

CONFIG = c.Experiment(
  task=c.Task(name='cifar100'),
  cohort=c.fixed_size(clients_per_round=10),
  client=c.Client(batch_size=20, learning_rate=0.1),
  server=c.Server(learning_rate=3.16),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=4000,
  evaluate_every=100,
)
SWEEP = _reddi_2021.sweep(
  client_rates=(0.1, 0.0316, 0.0316, 0.0316, 0.1),
  server_rates=(0.1, 1.0, 1.0, 1.0, 3.16),
  epsilons=(0.01, 0.1, 0.1),
)
CLAIM = _reddi_2021.claim(source='none looked up')
