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

from experiments.papers import _reddi_2021
from tff_pipeline import config as c

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
SWEEP = _reddi_2021.sweep(
  client_rates=(0.316, 0.316, 0.316, 0.316, 0.316),
  server_rates=(0.0316, 0.01, 0.01, 1.0, 1.0),
  epsilons=(0.0001, 1e-05, 1e-05),
)
CLAIM = _reddi_2021.claim(source='none looked up')
