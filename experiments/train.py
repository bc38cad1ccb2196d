"""Trains an experiment, or continues it where it was stopped.

python -m experiments.train --experiment=quickstart --output_dir=runs/q
"""

import sys

from absl import flags

from experiments import cli  # First: it sets TensorFlow's environment.
from tff_pipeline import validate

_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Run directory; the same command again resumes.'
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  None,
  'Folder of the data sets; what is missing is downloaded into it. Unset means '
  'the environment variable TFF_PIPELINE_DATA_DIR, else ~/.cache/tff_pipeline.',
)
_MAX_EPSILON = flags.DEFINE_float(
  'max_epsilon',
  None,
  'Stop before the round in which the headline epsilon would exceed this; '
  'further guarantees of a run (example_level, central) have no limit.',
)
_STOP_AT_ACCURACY = flags.DEFINE_float(
  'stop_at_accuracy',
  None,
  'Stop after the first evaluated round whose held-out accuracy is at least '
  'this: how many rounds to a target. Not with noise, whose epsilon is of a '
  'number of rounds that was fixed before.',
)


def main() -> int:
  """Runs the experiment of the command line; returns the exit status."""
  from tff_pipeline import experiment  # Late: `--help` must not pay for it.

  cli.log_to_stderr()
  wanted = cli.read_experiment()
  if not _OUTPUT_DIR.value:
    raise validate.error('output_dir', expected='a directory', found='nothing')
  try:
    summary = experiment.run(
      wanted,
      _OUTPUT_DIR.value,
      data_dir=_DATA_DIR.value,
      max_epsilon=_MAX_EPSILON.value,
      stop_at_accuracy=_STOP_AT_ACCURACY.value,
      argv=sys.argv,
    )
  except experiment.Interrupted as e:
    print(e, file=sys.stderr)
    return cli.INTERRUPTED_STATUS
  except experiment.Failed as e:
    print('error:', ' '.join(str(e).split()), file=sys.stderr)
    return 1
  print(experiment.describe(summary, _OUTPUT_DIR.value))
  return 0


if __name__ == '__main__':
  cli.define_experiment()
  cli.run(main)
