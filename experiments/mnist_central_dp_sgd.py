"""Centralized DP-SGD on MNIST: one place holds all the data, epsilon 2.

Paper:    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang. Deep Learning
          with Differential Privacy. CCS 2016. arXiv:1607.00133, Algorithm 1.
Differs:  2NN of McMahan et al. 2017, no principal components; tight accounting.
Run:      python -m experiments.train --experiment=mnist_central_dp_sgd
          --output_dir=runs/mnist_central_dp_sgd
Takes:    6 to 7 minutes on 2 CPU cores that were busy with other work
          (2026-11-24).
"""

from tff_pipeline import config as c

CONFIG = c.Experiment(
  task=c.Task(name='mnist', model='two_nn', partition='iid', clients=1),
  cohort=c.full(),
  client=c.Client(batch_size=600, learning_rate=0.5),
  server=c.Server(),
  algorithm=c.Algorithm(name='centralized', batches='poisson'),
  privacy=c.Privacy(
    mechanism='dp_sgd',
    target_epsilon=2.0,
    clip_norm=1.0,
    delta=1e-5,
    population=60_000,
  ),
  rounds=10,
)
CLAIM = c.Claim(
  epsilon=2.0,
  accuracy=(0.916, 0.916),
  source='this repository, one run of seed 0, 2026-11-24',
)
