"""What Reddi et al. 2021 compare on each of their tasks; no paper by itself.

Five server optimizers, each with the rates that were best for it. Whatever is
given for each of them is in this order: FedAdagrad, FedAdam, FedYogi, FedAvgM
and FedAvg.
"""

from tff_pipeline import config as c
from tff_pipeline.sweeps import design

_OPTIMIZER, _MOMENTUM = 'server.optimizer', 'server.momentum'
_ARMS = {
  'FedAdagrad': {_OPTIMIZER: 'adagrad', _MOMENTUM: None},
  'FedAdam': {_OPTIMIZER: 'adam', _MOMENTUM: None},
  'FedYogi': {_OPTIMIZER: 'yogi', _MOMENTUM: None},
  'FedAvgM': {_OPTIMIZER: 'sgd', _MOMENTUM: 0.9},
  'FedAvg': {_OPTIMIZER: 'sgd', _MOMENTUM: None},
}


def sweep(
  *,
  client_rates: tuple[float, ...],
  server_rates: tuple[float, ...],
  epsilons: tuple[float, ...],
) -> design.Sweep:
  """Returns the five runs.

  Args:
    client_rates: Learning rates of the clients' SGD.
    server_rates: Learning rates of the server.
    epsilons: The paper's tau, of the three that have it.
  """
  arms = _ARMS.values()
  return design.zipped(
    {
      _OPTIMIZER: tuple(arm[_OPTIMIZER] for arm in arms),
      'client.learning_rate': client_rates,
      'server.learning_rate': server_rates,
      'server.epsilon': (*epsilons, None, None),
      _MOMENTUM: tuple(arm[_MOMENTUM] for arm in arms),
    }
  )


def claim(
  *,
  source: str,
  published: tuple[float | None, ...] = (None,) * len(_ARMS),
  difference: str = '',
) -> c.Claim:
  """Returns a row for each server optimizer.

  Args:
    source: Where the figures are from.
    published: Final accuracies.
    difference: Where and why ours differ.
  """
  return c.Claim(
    epsilon=float('inf'),
    source=source,
    difference=difference,
    rows=tuple(
      c.Row(name=name, arm=arm, published=accuracy)
      for (name, arm), accuracy in zip(_ARMS.items(), published, strict=True)
    ),
  )
