"""The noise key of a run directory."""

import pathlib

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import noise_key as noise_keys

NAME = 'noise_key'


def planned(
  experiment: config.Experiment, folder: pathlib.Path
) -> noise_keys.NoiseKey:
  """Returns the key of this run: kept, fixed by the config, or drawn now.

  Raises:
    UsageError: If the key of a run with checkpoints is gone: they hold the
      old one, so a new one would not be used where it is recorded.
  """
  privacy = experiment.privacy
  if privacy.noise_seed is not None:
    return noise_keys.from_seed(privacy.noise_seed)
  if not follows_key(experiment):
    return noise_keys.draw()
  path = folder / NAME
  try:
    return noise_keys.from_text(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    if any((folder / 'checkpoints').glob('*')):
      raise validate.error(
        'output_dir',
        expected=f'the noise key that {folder} was started with',
        found=f'no {path}',
        remedy='Restore the file, or start a new run elsewhere',
      ) from None
    return noise_keys.draw()
  except (OSError, ValueError) as e:
    raise validate.error(
      'output_dir', expected=f'a noise key in {path}', found=str(e)
    ) from e


def keep(
  experiment: config.Experiment,
  key: noise_keys.NoiseKey,
  folder: pathlib.Path,
) -> None:
  """Writes a drawn key that the run's noise follows, unless it is there."""
  path = folder / NAME
  drawn = experiment.privacy.noise_seed is None
  if drawn and follows_key(experiment) and not path.exists():
    run_directory.write_text(path, noise_keys.to_text(key), mode=0o600)


def is_noised(privacy: config.Privacy) -> bool:
  """Returns whether a run adds noise."""
  return bool(privacy.noise_multiplier or privacy.example_noise_multiplier)


def follows_key(experiment: config.Experiment) -> bool:
  """Returns whether anything in a run follows its noise key."""
  return is_noised(experiment.privacy) and noise_keys.is_keyed(
    experiment.algorithm.batches
  )
