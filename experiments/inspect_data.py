"""Shows a data set: clients, labels, examples, and what privacy would cost.

  python -m experiments.inspect_data --task.name=digits
    --task.partition=dirichlet --task.clients=360 --task.concentration=1
  python -m experiments.inspect_data --experiment=quickstart --output_dir=look

Prints; with --output_dir, also draws pictures (PNG). Only the leaves of the
task, --seed and --rounds matter. Examples are shown: look at your own data
where you may. Clients are numbers, never names.
"""

from collections.abc import Iterable
import math
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli
from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import tasks
from tff_pipeline import validate

if TYPE_CHECKING:
  from tff_pipeline.data import data_set
  from tff_pipeline.data import portrait as portraits

_NOISE_MULTIPLIERS = (0.5, 1.0, 2.0, 4.0)
_COHORTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_MOST_COHORTS = 6
_ROUNDS = 100
_IDS_SHOWN = 300

# What an experiment must have, but a look at its data does not.
_UNSEEN = {
  'cohort.sampling': 'full',
  'client.batch_size': 1,
  'client.learning_rate': 1.0,
  'server.learning_rate': 1.0,
  'privacy.mechanism': 'none',
}


def define_flags() -> None:
  """Defines the flags of this binary."""
  cli.define_experiment()
  flags.DEFINE_string(
    'data_dir', None, 'Folder of the data sets; see --help of train.'
  )
  flags.DEFINE_string(
    'output_dir', None, 'Folder for the pictures; unset draws none.'
  )


def main() -> int:
  """Prints and draws the data of the command line's task."""
  task, seed, rounds = _asked()
  loaded = tasks.load(task, data_dir=flags.FLAGS['data_dir'].value)
  train, _ = tasks.clients(loaded, task=task, seed=seed)

  from tff_pipeline.data import portrait as portraits

  portrait = portraits.of(
    train,
    num_classes=loaded.num_classes,
    has_tokens=loaded.vocabulary_size is not None,
  )
  if loaded.is_stand_in:
    print(f'This is a {tasks.STAND_IN}, not the real data.')
  print(portraits.describe(portrait, loaded.class_names))
  print(f'{len(loaded.test):,} held-out examples.')
  if loaded.uncovered:
    print('Computed without noise: ' + '; '.join(loaded.uncovered) + '.')
  if portrait.kind is portraits.Kind.TOKENS:
    texts = portraits.texts(portrait, tasks.vocabulary(task))
    print('\nOne example each of some clients:')
    print('\n'.join(f'  {_cut(text)}' for text in texts))
  table, title = _print_prices(len(portrait.sizes), rounds)
  if flags.FLAGS['output_dir'].value:
    folder = pathlib.Path(flags.FLAGS['output_dir'].value)
    drawn = draw(folder, portrait, loaded)
    if table:
      from tff_pipeline.data import pictures

      drawn.append(pictures.prices(table, folder / 'privacy.png', title=title))
    print('\nPictures: ' + ', '.join(map(str, drawn)))
  return 0


def _asked() -> tuple[config.Task, int, int]:
  """Returns task, seed and rounds of the command line."""
  given = config_flags.given(flags.FLAGS)
  if flags.FLAGS['experiment'].value is not None:
    whole = cli.read_experiment()
    return whole.task, whole.seed, whole.rounds or _ROUNDS
  for name in given:
    if not name.startswith('task.') and name not in ('seed', 'rounds'):
      raise validate.error(
        name,
        expected='no value without --experiment: data is all that is looked at',
        found=given[name],
      )
  whole = config_flags.apply(None, _UNSEEN | {'rounds': _ROUNDS} | given)
  return whole.task, whole.seed, whole.rounds


def _cut(text: str) -> str:
  return text if len(text) <= _IDS_SHOWN else text[:_IDS_SHOWN] + ' …'


def sensible_delta(population: int) -> float:
  """Returns the largest power of ten below 1/population.

  >>> sensible_delta(360), sensible_delta(1000)
  (0.001, 0.0001)
  """
  return 10.0 ** -(math.floor(math.log10(population)) + 1)


def cohorts(population: int) -> list[int]:
  """Returns round cohort sizes below the population, at most six.

  >>> cohorts(360)
  [5, 10, 20, 50, 100, 200]
  """
  return [size for size in _COHORTS if size < population][-_MOST_COHORTS:]


def epsilons(
  population: int,
  *,
  noise_multiplier: float,
  sizes: Iterable[int],
  rounds: int,
  delta: float,
) -> dict[int, float]:
  """Returns cohort size -> user-level epsilon by RDP, Poisson cohorts.

  Args:
    population: Number of clients.
    noise_multiplier: Noise standard deviation over the clip norm.
    sizes: Expected cohort sizes.
    rounds: Number of rounds.
    delta: Of the statement.
  """
  from tff_pipeline.privacy import accounting
  from tff_pipeline.privacy import guarantees

  def price(size: int) -> float:
    terms = config.Terms(
      privacy=config.gaussian(
        noise_multiplier=noise_multiplier,
        clip_norm=1.0,
        delta=delta,
        population=population,
      ),
      cohort=config.poisson(size),
      client=config.Client(batch_size=1, learning_rate=1.0),
      algorithm=config.Algorithm(),
      seed=0,
    )
    return accounting.epsilon(
      guarantees.build(terms), rounds, delta=delta, accountant='rdp'
    )

  return {size: price(size) for size in sizes}


def _print_prices(
  population: int, rounds: int
) -> tuple[dict[float, dict[int, float]], str]:
  """Prints what the number of clients means for user-level privacy."""
  delta = sensible_delta(population)
  sizes = cohorts(population)
  print(
    f'\nPrivacy of a client: --privacy.population={population}; delta must be '
    f'below 1/{population} = {1 / population:.2g}, so at most '
    f'--privacy.delta={delta:g}.'
  )
  if not sizes:
    print('Too few clients to sample cohorts from: nothing is amplified.')
    return {}, ''
  table = {
    noise: epsilons(
      population,
      noise_multiplier=noise,
      sizes=sizes,
      rounds=rounds,
      delta=delta,
    )
    for noise in _NOISE_MULTIPLIERS
  }
  title = f'{rounds} rounds, delta {delta:g}, adding or removing one client'
  print(f'Epsilon (RDP): {title}, Poisson cohorts; z is the noise multiplier.')
  print('  clients a round' + ''.join(f'{f"z={z:g}":>9}' for z in table))
  for size in sizes:
    cells = ''.join(f'{_shown(table[z][size]):>9}' for z in table)
    print(f'{size:17,}{cells}')
  print(
    'The mean of m updates carries noise of z/m of the clip norm in each '
    'weight: large cohorts cost epsilon, and save accuracy.'
  )
  return table, title


def _shown(epsilon: float) -> str:
  from tff_pipeline.privacy import statement

  return statement.shown(epsilon)


def draw(
  folder: pathlib.Path,
  portrait: 'portraits.Portrait',
  loaded: 'data_set.DataSet',
) -> list[pathlib.Path]:
  """Draws the pictures of the data into a folder; returns their paths."""
  from tff_pipeline.data import pictures

  folder.mkdir(parents=True, exist_ok=True)
  drawn = [pictures.client_sizes(portrait.sizes, folder / 'clients.png')]
  names = ()
  if portrait.label_counts is not None:
    names = loaded.class_names or tuple(map(str, range(loaded.num_classes)))
    drawn.append(pictures.labels(portrait, names, folder / 'labels.png'))
  shown = pictures.examples(
    portrait,
    names,
    folder / 'examples.png',
    feature_names=loaded.feature_names,
  )
  return drawn + ([] if shown is None else [shown])


if __name__ == '__main__':
  define_flags()
  cli.run(main)
