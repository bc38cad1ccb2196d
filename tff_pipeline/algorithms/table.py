"""name -> how an algorithm is built, and which leaves are its own.

What else is known of it (paper, releases, what it refuses and why) stands in
`config.ALGORITHMS`, which loads no TensorFlow; a test holds the two tables to
the same names. To add an algorithm: a value of `config.AlgorithmName`, its
leaves in `config.Algorithm` (`used_by` its name), a row there, a row here.
"""

from collections.abc import Callable, Mapping
import dataclasses

import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import optimizers
from tff_pipeline.aggregation import broadcast
from tff_pipeline.aggregation import robust
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.algorithms import fed_dyn
from tff_pipeline.algorithms import fed_per
from tff_pipeline.algorithms import fed_prox
from tff_pipeline.algorithms import fed_recon
from tff_pipeline.algorithms import fed_rep
from tff_pipeline.algorithms import fed_sgd
from tff_pipeline.algorithms import mime_lite
from tff_pipeline.algorithms import q_fed_avg
from tff_pipeline.algorithms import scaffold
from tff_pipeline.client_work import compression as compressions
from tff_pipeline.client_work import protection as protections
from tff_pipeline.client_work import training_loop

_Name = config.AlgorithmName
_LOCAL_STEPS = ('local_layers', 'local_steps', 'local_learning_rate')
_UNCOMPRESSED = config.Compression()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """How an algorithm is built.

  Attributes:
    build: (model, **parts, **leaves) -> process.
    parts: What it takes of client_optimizer, rate, client_learning_rate and
      population, beside what all take: server_optimizer, schedule, protection,
      aggregator, weighting and distributor.
    leaves: Its own leaves of `config.Algorithm`, passed under their names.
  """

  build: Callable[..., tff.learning.templates.LearningProcess]
  parts: tuple[str, ...] = ('client_optimizer', 'rate')
  leaves: tuple[str, ...] = ()


TABLE: Mapping[config.AlgorithmName, Row] = {
  _Name.FED_AVG: Row(build=fed_avg.build),
  _Name.FED_SGD: Row(build=fed_sgd.build, parts=()),
  _Name.FED_PROX: Row(build=fed_prox.build, leaves=('proximal_strength',)),
  _Name.MIME_LITE: Row(build=mime_lite.build),
  _Name.Q_FED_AVG: Row(
    build=q_fed_avg.build,
    parts=('client_optimizer', 'client_learning_rate'),
    leaves=('fairness',),
  ),
  _Name.SCAFFOLD: Row(
    build=scaffold.build,
    parts=('client_optimizer', 'client_learning_rate', 'rate', 'population'),
  ),
  _Name.FED_DYN: Row(
    build=fed_dyn.build,
    parts=('client_optimizer', 'rate', 'population'),
    leaves=('regularization_strength',),
  ),
  _Name.FED_PER: Row(build=fed_per.build, leaves=('local_layers',)),
  _Name.FED_REP: Row(build=fed_rep.build, leaves=_LOCAL_STEPS),
  _Name.FED_RECON: Row(build=fed_recon.build, leaves=_LOCAL_STEPS),
}
"""Every algorithm but the centralized baseline, which is no process."""


def build(
  model: tff.learning.models.FunctionalModel,
  *,
  algorithm: config.Algorithm,
  client: config.Client,
  server: config.Server,
  protection: protections.Protection,
  aggregator: tff.aggregators.AggregationFactory,
  population: int,
  compression: config.Compression = _UNCOMPRESSED,
  seed: int = 0,
) -> tff.learning.templates.LearningProcess:
  """Returns the learning process of a config.

  Args:
    model: The model; its initial weights are the global ones.
    algorithm: Which one, and its leaves.
    client: Optimizer, epochs and batches of a client.
    server: The server's optimizer.
    protection: What happens on a client before anything leaves it.
    aggregator: The mechanism's; used unless the algorithm's leaf is another.
    population: Number of clients that could take part.
    compression: How updates and broadcasts are encoded; comes before what
      `protection` does with an update.
    seed: The experiment's seed; decides how a broadcast is rounded.
  """
  protection = dataclasses.replace(
    protection, release=compressions.release(compression, protection.release)
  )
  row = TABLE[algorithm.name]
  possible = {
    'client_optimizer': lambda: optimizers.build(client),
    'rate': lambda: optimizers.rate(client),
    'client_learning_rate': lambda: client.learning_rate,
    'population': lambda: population,
  }
  return row.build(
    model,
    server_optimizer=optimizers.scheduled(server),
    schedule=schedule(client),
    protection=protection,
    aggregator=robust.build(algorithm) or aggregator,
    weighting=algorithm.weighting,
    distributor=broadcast.build(compression, seed=seed),
    **{name: possible[name]() for name in row.parts},
    **{leaf: getattr(algorithm, leaf) for leaf in row.leaves},
  )


def schedule(client: config.Client) -> training_loop.Schedule:
  """Returns epochs and batches of a client."""
  partial = client.stragglers is config.Stragglers.PARTIAL
  return training_loop.Schedule(
    epochs=client.epochs,
    batch_size=client.batch_size,
    sampling_rate=client.sampling_rate,
    shuffle=client.shuffle,
    max_examples=client.max_examples,
    max_steps=client.max_steps,
    straggler_share=client.straggler_share if partial else None,
  )
