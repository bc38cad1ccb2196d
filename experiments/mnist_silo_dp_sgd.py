"""Example-level DP-SGD in ten silos on MNIST, epsilon 2 for each example.

Paper:    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang. Deep Learning
          with Differential Privacy. CCS 2016. arXiv:1607.00133, Algorithm 1, as
          the local training of federated averaging.
Differs:  Nobody need be trusted but the silo itself; each silo draws Poisson
          batches of 120 expected examples.
Run:      python -m experiments.train --experiment=mnist_silo_dp_sgd
          --output_dir=runs/mnist_silo_dp_sgd
Takes:    3 minutes on one busy core (2026-11-24).
"""

from tff_pipeline import config as c

CONFIG = c.Experiment(
  task=c.Task(name='mnist', model='two_nn', partition='iid', clients=10),
  cohort=c.full(),
  client=c.Client(epochs=1, sampling_rate=0.02, learning_rate=0.5),
  server=c.Server(learning_rate=1.0),
  privacy=c.Privacy(
    mechanism='dp_sgd',
    target_epsilon=2.0,
    clip_norm=1.0,
    delta=1e-5,
    population=10,
  ),
  rounds=10,
)
CLAIM = c.Claim(
  epsilon=2.0,
  accuracy=(0.895, 0.895),
  source='this repository, one run of seed 0, 2026-11-24',
)
