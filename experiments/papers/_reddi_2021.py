"""What Reddi et al. 2021 compare on each of their tasks; no paper by itself.

Five server optimizers, each with the rates that were best for it. The sums of
squares of FedAdagrad and FedYogi start from zero, as in the authors' code.
TFF's Adagrad has its epsilon inside the root, theirs outside: there, tau is
squared. Whatever is given for each of them is in this order: FedAdagrad,
FedAdam, FedYogi, FedAvgM and FedAvg.
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
      'server.epsilon': (
        round(epsilons[0] ** 2, 12),
        *epsilons[1:],
        None,
        None,
      ),
      'server.initial_accumulator': (0.0, None, 0.0, None, None),
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
    published: Accuracies, means over the last hundred rounds.
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
