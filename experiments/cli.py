"""What all binaries share: start, stop, help, and reading the experiment.

Import this module before anything else of a binary: TensorFlow reads its
environment when it is first imported. Nothing heavy is imported here, so
`--help` and every usage error answer at once; import the heavy modules inside
`main`.
"""

from collections.abc import Callable, Sequence
import difflib
import importlib
import logging
import os
import pathlib
import sys
import types
from typing import Any

# Level 3 hides the CUDA "unable to register" errors of a machine without CUDA.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
# Convolutions take 1.6 times as long without; TensorFlow itself switches it on
# for new Intel processors only.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')

from absl import app
from absl import flags
from absl import logging as absl_logging

from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import validate

USAGE_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells report it.

_ROOT = pathlib.Path(__file__).parent
_PACKAGES = {'experiments': _ROOT, 'experiments.papers': _ROOT / 'papers'}

# The flags below belong to the binary that calls `define_experiment`.
flags.disclaim_key_flags()


def run(main: Callable[[], int | None]) -> None:
  """Parses the command line, calls `main` and exits with what it returns.

  A mistake that the user can mend (`validate.UsageError`, a bad flag, a stray
  argument) prints one line on standard error and exits with status 2; Ctrl-C
  exits with status 130. Everything else is a bug and keeps its traceback.

  `absl.app.run` is not used: once it has begun, importing TensorFlow creates
  TensorFlow's context too early (distribute/combinations.py asks for the GPUs
  in `app.call_after_init`), eager execution is not on yet, and Keras then
  fails to build models. TensorFlow is imported late here, for `--help`'s sake.
  """

  def no_arguments(arguments: list[str]) -> int | None:
    if arguments:
      raise validate.UsageError(
        f'unexpected argument {arguments[0]!r}: flags look like --name=value'
      )
    return main()

  run_on_paths(no_arguments)


def run_on_paths(main: Callable[[list[str]], int | None]) -> None:
  """As `run`, for a binary whose arguments without dashes are paths."""
  try:
    app.define_help_flags()
    arguments = _parse_flags(sys.argv)
    sys.exit(main(arguments[1:]))
  except (validate.UsageError, flags.Error) as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(USAGE_ERROR_STATUS)
  except KeyboardInterrupt:
    sys.exit(INTERRUPTED_STATUS)


def log_to_stderr() -> None:
  """Shows this project's log, and of its libraries' logs what went wrong."""
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  ours = logging.getLogger('tff_pipeline')
  ours.addHandler(handler)
  ours.setLevel(logging.INFO)
  ours.propagate = False
  # Keras and TensorFlow warn about every model that is saved uncompiled.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger('tensorflow').setLevel(logging.ERROR)


def define_experiment() -> None:
  """Defines --experiment and one flag per leaf of the config."""
  flags.DEFINE_string(
    'experiment',
    None,
    'Experiment file: a name from experiments/ or experiments/papers/, or '
    'your own as package.module. Flags override its leaves; unset starts from '
    'the defaults.',
  )
  config_flags.define()


def read_experiment() -> config.Experiment:
  """Returns the experiment that the command line describes.

  Raises:
    UsageError: If the experiment is unknown or not valid.
  """
  name = flags.FLAGS['experiment'].value
  from_file = None if name is None else load(name)
  return config_flags.apply(from_file, config_flags.given(flags.FLAGS))


def load(name: str) -> config.Experiment:
  """Returns CONFIG of an experiment file, by short or by dotted name."""
  return experiment_file(name).CONFIG


def load_sweep(name: str) -> Any:
  """Returns SWEEP of an experiment file, or `None` if it has none."""
  return getattr(experiment_file(name), 'SWEEP', None)


def experiment_file(name: str) -> types.ModuleType:
  """Returns the module of an experiment file, by short or by dotted name.

  Raises:
    UsageError: If there is none, or it has no CONFIG.
  """
  known = experiment_names()
  module = known.get(name, name)
  if module == name and '.' not in name:
    close = difflib.get_close_matches(name, known, n=1)
    raise validate.error(
      'experiment',
      expected='one of ' + ', '.join(known),
      found=name,
      remedy=f'Did you mean {close[0]}?' if close else '',
    )
  try:
    loaded = importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not f'{module}.'.startswith(f'{error.name}.'):
      raise  # The experiment exists; something that it imports does not.
    raise validate.error(
      'experiment', expected='an importable module', found=name
    ) from error
  if not isinstance(getattr(loaded, 'CONFIG', None), config.Experiment):
    raise validate.error(
      'experiment',
      expected='a module with CONFIG = config.Experiment(...)',
      found=name,
    )
  return loaded


def experiment_names() -> dict[str, str]:
  """Returns short name -> module of the experiment files in this repository."""
  return {
    path.stem: f'{package}.{path.stem}'
    for package, folder in _PACKAGES.items()
    for path in sorted(folder.glob('*.py'))
    if '\nCONFIG = ' in path.read_text(encoding='utf-8')
  }


class _HelpFlag(flags.BooleanFlag):
  """Prints the binary's own help, grouped by section, and exits with 0."""

  def __init__(self, name: str, short_name: str | None) -> None:
    super().__init__(
      name,
      False,
      'Show this help.',
      short_name=short_name,
      allow_override=True,
    )

  def parse(self, argument: str | bool) -> None:
    if self._parse(argument):
      print(_help(), flush=True)
      sys.exit(0)


def _help() -> str:
  main = sys.modules['__main__']
  own = flags.FLAGS.get_key_flags_for_module(main)
  return '\n\n'.join(
    [
      (main.__doc__ or '').strip(),
      config_flags.help_text(flags.FLAGS, run_flags=own),
      'A flag on the command line wins over --flagfile=FILE (one flag a '
      'line),\nwhich wins over the experiment file. --helpfull adds the flags '
      'of libraries.',
    ]
  )


def _parse_flags(argv: Sequence[str]) -> list[str]:
  # absl's own help flags list the main module alone and exit with status 1.
  for name, short_name in (('help', '?'), ('helpshort', None)):
    flags.DEFINE_flag(_HelpFlag(name, short_name))
  try:
    return flags.FLAGS(config_flags.flagfiles_first(argv))
  except flags.UnrecognizedFlagError as error:
    meant = config_flags.suggestions(error.flagname, flags.FLAGS)
    if 'Did you mean' in str(error) or not meant:
      raise
    raise flags.UnrecognizedFlagError(
      error.flagname, suggestions=meant
    ) from error
