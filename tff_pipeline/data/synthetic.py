"""FedProx's synthetic data: 30 clients, 60 features, 10 classes.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in
heterogeneous networks", MLSys 2020 (arXiv:1812.06127), section 5.1 and the
authors' published generator. Client k, with Sigma = diag(j^-1.2):

  n_k ~ floor(LogNormal(4, 2)) + 50
  u_k ~ N(0, alpha);  W_k, b_k ~ N(u_k, 1), elementwise
  B_k ~ N(0, beta);   v_k ~ N(B_k, 1), elementwise
  x ~ N(v_k, Sigma);  y = argmax(x W_k + b_k)

IID: one W, b ~ N(0, 1) for all, and v_k = 0. The last tenth of each client's
examples is held out. As in their generator, and unlike the paper's notation,
alpha and beta are standard deviations. Theirs is unseeded; this one always
draws the same data, whatever the experiment's seed.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set

NUM_CLIENTS = 30
NUM_FEATURES = 60
NUM_CLASSES = 10
_SEED = 0xFED


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns x float32 [n, 60], y int32 [n]; generated on the spot."""
  del data_dir
  clients = generate(
    alpha=task.alpha, beta=task.beta, rng=np.random.default_rng(_SEED)
  )
  train, test = (
    _laid_out([client[part] for client in clients]) for part in (0, 1)
  )
  return data_set.DataSet(
    train=train,
    test=test.examples,
    num_classes=NUM_CLASSES,
    client_test=test,
    is_stand_in=task.source is config.Source.STAND_IN,
  )


def generate(
  *, alpha: float | None, beta: float | None, rng: np.random.Generator
) -> list[tuple[client_data.Examples, client_data.Examples]]:
  """Returns each client's training and test examples.

  Args:
    alpha: Deviation of the labelling models' means; `None`, with beta, for the
      IID data.
    beta: Deviation of the features' means.
    rng: Source of all randomness.
  """
  sizes = rng.lognormal(4.0, 2.0, NUM_CLIENTS).astype(int) + 50
  variances = np.arange(1, NUM_FEATURES + 1) ** -1.2
  shared = _labelling_model(rng, 0.0)
  clients = []
  for size in sizes:
    model, centre = shared, np.zeros(NUM_FEATURES)
    if alpha is not None:
      model = _labelling_model(rng, rng.normal(0.0, alpha))
      centre = rng.normal(rng.normal(0.0, beta), 1.0, NUM_FEATURES)
    x = rng.normal(centre, np.sqrt(variances), (size, NUM_FEATURES))
    weights, bias = model
    y = np.argmax(x @ weights + bias, axis=1)
    first = int(0.9 * size)
    whole = x.astype(np.float32), y.astype(np.int32)
    clients.append(
      (
        client_data.Examples(*(values[:first] for values in whole)),
        client_data.Examples(*(values[first:] for values in whole)),
      )
    )
  return clients


def _labelling_model(
  rng: np.random.Generator, mean: float
) -> tuple[np.ndarray, np.ndarray]:
  weights = rng.normal(mean, 1.0, (NUM_FEATURES, NUM_CLASSES))
  return weights, rng.normal(mean, 1.0, NUM_CLASSES)


def _laid_out(clients: list[client_data.Examples]) -> client_data.ClientData:
  offsets = np.cumsum([0, *map(len, clients)], dtype=np.int64)
  return client_data.ClientData(
    client_data.Examples(
      np.concatenate([client.x for client in clients]),
      np.concatenate([client.y for client in clients]),
    ),
    offsets,
  )
