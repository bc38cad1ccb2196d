"""User-level DP-FedAvg on MNIST dealt to 6,000 clients, epsilon 2.

Paper:    McMahan, Ramage, Talwar, Zhang. Learning Differentially Private
          Recurrent Language Models. ICLR 2018. arXiv:1710.06963, Algorithm 1.
Differs:  MNIST dealt to clients of 10 examples; Poisson cohorts.
Run:      python -m experiments.train --experiment=mnist_user_level
          --output_dir=runs/mnist_user_level
Takes:    75 seconds on 2 CPU cores that were busy with other work
          (2026-11-24).
"""

from tff_pipeline import config as c

CONFIG = c.Experiment(
  task=c.Task(name='mnist', model='two_nn', partition='iid', clients=6000),
  cohort=c.poisson(clients_per_round=600),
  client=c.Client(epochs=2, batch_size=5, learning_rate=0.05),
  server=c.Server(learning_rate=1.0, momentum=0.9),
  privacy=c.gaussian(
    target_epsilon=2.0, clip_norm=0.3, delta=1e-5, population=6000
  ),
  rounds=60,
  evaluate_every=5,
)
CLAIM = c.Claim(
  epsilon=2.0,
  accuracy=(0.930, 0.930),
  source='this repository, one run of seed 0, 2026-11-24',
)
