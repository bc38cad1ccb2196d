"""A config -> the parts of its run."""

import dataclasses
import os
import typing
from typing import Any

import numpy as np

from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import noise_key as noise_keys

if typing.TYPE_CHECKING:
  import tensorflow_federated as tff

  from tff_pipeline import personalization
  from tff_pipeline.algorithms import traffic
  from tff_pipeline.engines import engine as engines
  from tff_pipeline.engines import state_channel
  from tff_pipeline.models import functional


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
  """What a config builds: everything that a round needs.

  Attributes:
    task: Data, model factory, loss and metrics.
    model: The functional model with the initial weights, split if some layers
      are local.
    sampler: Round number -> client ids.
    guarantee: What the run promises.
    engine: Not entered yet.
    channel: What clients keep between rounds; `None` if nothing.
    initial_client_state: State of a client that never took part; unset means
      zeros.
    traffic: Bytes of one client in a round; `None` if nothing is sent.
    held_out: Clients that never train, and are measured at the end.
  """

  task: tasks.Task
  model: 'tff.learning.models.FunctionalModel'
  sampler: sampling.Sampler
  guarantee: accounting.Guarantee
  engine: 'engines.Engine'
  channel: 'state_channel.Channel | None' = None
  initial_client_state: Any = None
  traffic: 'traffic.Traffic | None' = None
  held_out: 'tuple[personalization.Member, ...]' = ()


def smoke_round() -> None:
  """Runs one private round over two clients; raises if anything is broken."""
  tiny = config.Experiment(
    task=config.Task(name='digits', partition='iid', clients=300),
    cohort=config.fixed_size(2),
    client=config.Client(batch_size=10, learning_rate=0.1),
    server=config.Server(learning_rate=1.0),
    privacy=config.gaussian(
      noise_multiplier=1.0, clip_norm=1.0, delta=1e-3, population=300
    ),
    rounds=1,
  )
  parts = build(tiny, noise_key=noise_keys.draw())
  with parts.engine as engine:
    done = engine.round(
      engine.initialize(), round_num=1, clients=parts.sampler(1)
    )
  if not all(np.all(np.isfinite(w)) for w in weights(done.state).trainable):
    raise RuntimeError('the round gave weights that are not finite')


def build(
  experiment: config.Experiment,
  *,
  noise_key: noise_keys.NoiseKey,
  data_dir: str | os.PathLike[str] | None = None,
) -> Parts:
  """Builds all parts of a config in which nothing is left to solve.

  Args:
    experiment: The config.
    noise_key: Decides the DP noise.
    data_dir: Folder of the data sets' files; see `data.locations`.

  Raises:
    UsageError: If the config does not fit the data.
  """
  from tff_pipeline import personalization
  from tff_pipeline.engines import threads
  from tff_pipeline.models import functional

  in_process = experiment.engine is config.EngineName.IN_PROCESS
  if in_process and not _is_centralized(experiment):
    threads.prefer_clients(
      experiment.cohort.clients_per_round or experiment.task.clients or 1
    )
  leaves = experiment.task
  if _is_centralized(experiment):
    leaves = tasks.pooled(leaves)
  task = tasks.build(leaves, seed=experiment.seed, data_dir=data_dir)
  task, held_out = personalization.hold_out(
    task, experiment.personalization, seed=experiment.seed
  )
  _check_data(experiment, task.train.client_sizes)
  _check_metrics(experiment, task)
  model = functional.build(
    functional.keras_model(task.model_factory, seed=experiment.seed),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )
  assemble = _centralized if _is_centralized(experiment) else _federated
  parts = assemble(experiment, task=task, model=model, noise_key=noise_key)
  return dataclasses.replace(parts, held_out=held_out)


def _is_centralized(experiment: config.Experiment) -> bool:
  return experiment.algorithm.name is config.AlgorithmName.CENTRALIZED


def _federated(
  experiment: config.Experiment,
  *,
  task: tasks.Task,
  model: 'functional.LayeredModel',
  noise_key: noise_keys.NoiseKey,
) -> Parts:
  from tff_pipeline.algorithms import partial
  from tff_pipeline.algorithms import table
  from tff_pipeline.algorithms import traffic
  from tff_pipeline.engines import engine as engines
  from tff_pipeline.experiment import attacking
  from tff_pipeline.models import split as splits
  from tff_pipeline.privacy import mechanisms

  task = attacking.poison(experiment.attack, task, seed=experiment.seed)
  mechanism = mechanisms.build(
    config.terms(experiment),
    population=task.train.num_clients,
    noise_key=noise_key,
  )
  process = table.build(
    model,
    algorithm=experiment.algorithm,
    client=experiment.client,
    server=experiment.server,
    protection=attacking.protection(
      experiment.attack, mechanism.protection, task, seed=experiment.seed
    ),
    aggregator=mechanism.aggregator,
    population=task.train.num_clients,
    compression=experiment.compression,
    seed=experiment.seed,
  )
  sampler = mechanism.sampler
  if experiment.client.stragglers is config.Stragglers.DROP:
    sampler = sampling.without_stragglers(
      sampler, share=experiment.client.straggler_share, seed=experiment.seed
    )
  engine = engines.build(
    experiment.engine,
    process,
    data=task.train,
    schedule=table.schedule(experiment.client),
    seed=experiment.seed,
    noise_key=noise_key,
  )
  _check_client_states(experiment, engine.channel)
  initial_client_state = None
  if experiment.algorithm.local_layers is not None:
    # The process has split the same model: its weights are those of a split.
    model = splits.build(model, experiment.algorithm.local_layers)
    initial_client_state = partial.initial_client_state(model)
  return Parts(
    task=task,
    model=model,
    sampler=sampler,
    guarantee=mechanism.guarantee,
    engine=engine,
    channel=engine.channel,
    initial_client_state=initial_client_state,
    traffic=traffic.count(
      model,
      algorithm=experiment.algorithm,
      client=experiment.client,
      compression=experiment.compression,
    ),
  )


def _check_client_states(
  experiment: config.Experiment, channel: 'state_channel.Channel | None'
) -> None:
  """Refuses what the config's rules cannot see: an undeclared client state.

  The exception that the rules make is for local layers, and for a state that is
  nothing else.
  """
  from tff_pipeline.algorithms import partial

  mechanism = experiment.privacy.mechanism
  if channel is None or mechanism is config.Mechanism.NONE:
    return
  known = config.ALGORITHMS[experiment.algorithm.name].state_mechanisms
  if channel.parts == (partial.LOCAL,) and mechanism in known:
    return
  raise validate.error(
    'privacy.mechanism',
    expected=f'{config.Mechanism.NONE} with a learning process whose clients '
    f'keep a state: {config.CLIENT_STATES_UNDER_PRIVACY}',
    found=mechanism,
  )


def _centralized(
  experiment: config.Experiment,
  *,
  task: tasks.Task,
  model: 'tff.learning.models.FunctionalModel',
  noise_key: noise_keys.NoiseKey,
) -> Parts:
  from tff_pipeline.algorithms import centralized

  examples, client = task.train.examples, experiment.client
  engine = centralized.build(
    model,
    keras_factory=task.model_factory,
    loss_factory=task.loss_factory,
    examples=examples,
    client=client,
    privacy=experiment.privacy,
    batches=experiment.algorithm.batches,
    steps_per_round=guarantees.steps_per_round(
      client, population=len(examples)
    ),
    seed=experiment.seed,
    noise_key=noise_key,
  )
  return Parts(
    task=task,
    model=model,
    sampler=sampling.build(experiment.cohort, population=1, seed=0),
    guarantee=guarantees.build(config.terms(experiment)),
    engine=engine,
  )


def _check_data(experiment: config.Experiment, sizes: np.ndarray) -> None:
  """Refuses data that the guarantee does not fit.

  Args:
    experiment: The config.
    sizes: Examples of each client; all are one client's in centralized
      training.
  """
  privacy = experiment.privacy
  population, who = len(sizes), 'clients'
  if _is_centralized(experiment):
    population, who = int(sizes.sum()), 'training examples'
  extrapolated = privacy.noise_cohort_size is not None
  if not extrapolated and privacy.population not in (None, population):
    raise validate.error(
      'privacy.population',
      expected=f'{population}, the number of {who} in the data',
      found=privacy.population,
      remedy='Epsilon depends on the real population',
    )
  if (
    privacy.mechanism is config.Mechanism.DP_SGD
    or privacy.example_noise_multiplier is not None
  ):
    guarantees.check_example_delta(privacy.delta, sizes)


def _check_metrics(experiment: config.Experiment, task: tasks.Task) -> None:
  every = experiment.evaluate_clients_every
  if every is not None and 'accuracy' not in task.metric_factory():
    raise validate.error(
      'evaluate_clients_every',
      expected='no value with a task that has no accuracy',
      found=every,
    )


def weights(state: Any) -> Any:
  """Returns the model weights of a server state."""
  return state.global_model_weights
