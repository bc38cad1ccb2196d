"""Optimizer leaves of the config -> `tff.learning.optimizers`."""

import tensorflow_federated as tff

from tff_pipeline import config

_BUILDERS = {
  config.Optimizer.SGD: tff.learning.optimizers.build_sgdm,
  config.Optimizer.ADAM: tff.learning.optimizers.build_adam,
  config.Optimizer.ADAGRAD: tff.learning.optimizers.build_adagrad,
  config.Optimizer.YOGI: tff.learning.optimizers.build_yogi,
}
_LEAVES = ('learning_rate', 'momentum', 'beta_1', 'beta_2', 'epsilon')


def build(
  record: config.Client | config.Server,
) -> tff.learning.optimizers.Optimizer:
  """Returns the optimizer; unset leaves take TFF's defaults."""
  arguments = {
    name: getattr(record, name)
    for name in _LEAVES
    if getattr(record, name) is not None
  }
  return _BUILDERS[record.optimizer](**arguments)
