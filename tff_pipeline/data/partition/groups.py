"""Silos of whole clients: the people of one hospital, the devices of one site.

Unlike in the partitions of pooled examples, no client's examples are parted,
and the seed decides nothing: clients go together in the data set's own order,
so that the number of examples of a silo, which a price may depend on, is known
beforehand.
"""

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data.partition import sizes


def group(
  train: client_data.ClientData,
  test: client_data.ClientData | None,
  *,
  task: config.Task,
) -> tuple[client_data.ClientData, client_data.ClientData | None]:
  """Makes `task.clients` silos; they differ by one client at most.

  Args:
    train: The clients' training examples.
    test: Their held-out examples, in the same order; `None` if there are none.
    task: Gives `clients` and `min_examples`.

  Returns:
    Both, with the silos in the place of the clients.

  Raises:
    UsageError: If there are fewer clients than silos, or a silo has fewer
      examples than it is to have.
  """
  if task.clients > train.num_clients:
    raise validate.error(
      'task.clients',
      expected=f'at most {train.num_clients} groups of the clients that the '
      'data set has',
      found=task.clients,
    )
  ends = np.cumsum([0, *sizes.even(train.num_clients, task.clients)])
  merged = client_data.ClientData(train.examples, train.offsets[ends])
  least = 1 if task.min_examples is None else task.min_examples
  if merged.client_sizes.min() < least:
    raise validate.error(
      'task.min_examples',
      expected=f'at most {merged.client_sizes.min()}, the examples of the '
      'smallest group',
      found=least,
    )
  if test is None:
    return merged, None
  return merged, client_data.ClientData(test.examples, test.offsets[ends])
