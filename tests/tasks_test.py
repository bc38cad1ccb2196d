"""Tests of the table of tasks."""

from tff_pipeline import config
from tff_pipeline import tasks


def test_pooled_task_has_one_client_with_all_examples():
  dealt = config.Task(
    name='digits', partition='dirichlet', clients=9, concentration=0.1
  )
  built = tasks.build(tasks.pooled(dealt), seed=3)
  assert built.train.client_sizes.tolist() == [1437]


def test_pooled_task_keeps_what_is_not_about_clients():
  dealt = config.Task(
    name='synthetic', labelling='own', alpha=1.0, beta=2.0, model='mlp'
  )
  pooled = tasks.pooled(dealt)
  assert (pooled.alpha, pooled.beta, pooled.model) == (1.0, 2.0, 'mlp')
