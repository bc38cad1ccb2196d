"""Five server optimizers on tags of StackOverflow, sparse: not run here.

Paper:    Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
          Adaptive federated optimization. ICLR 2021. arXiv:2003.00295; learning
          rates of google-research/federated, optimization/docs.
Differs:  Adam and Yogi are TFF's, which correct the bias of both moments. The
          loss of a batch is a mean, theirs a sum: client rates are a hundred
          times theirs, a batch having a hundred examples.
Run:      python -m experiments.sweep
          --experiment=reddi_2021_stackoverflow_tags
          --output_dir=runs/papers/reddi_2021_stackoverflow_tags
Takes:    not run here: it needs a download and a bigger machine.
"""

from experiments.papers import _reddi_2021
from tff_pipeline import config as c

CONFIG = c.Experiment(
  task=c.Task(name='stackoverflow_tags'),
  cohort=c.fixed_size(clients_per_round=10),
  client=c.Client(batch_size=100, learning_rate=10_000.0, max_examples=1000),
  server=c.Server(learning_rate=1.0),
  algorithm=c.Algorithm(weighting='num_examples'),
  privacy=c.no_privacy(),
  rounds=1500,
  evaluate_every=100,
)
SWEEP = _reddi_2021.sweep(
  client_rates=(10_000.0,) * 5,
  server_rates=(10.0, 0.316, 0.316, 1.0, 1.0),
  epsilons=(0.01, 1e-05, 1e-05),
)
CLAIM = _reddi_2021.claim(source='none looked up')
