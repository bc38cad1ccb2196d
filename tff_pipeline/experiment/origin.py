"""Where a result comes from: versions, git revision, command line."""

from collections.abc import Mapping, Sequence
import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

from tff_pipeline import config
from tff_pipeline.experiment import same_data

_PACKAGES = (
  'tensorflow',
  'tensorflow-federated',
  'tensorflow-privacy',
  'dp-accounting',
  'keras',
  'numpy',
)


def record(
  experiment: config.Experiment,
  solution: Mapping[str, Any] | None,
  argv: Sequence[str],
  *,
  uncovered: Sequence[str],
  data_tag: str | None,
) -> dict[str, Any]:
  """Returns the content of `config.json`.

  Args:
    experiment: The config, as it was given.
    solution: What was solved for a target epsilon, if there is one.
    argv: The command line.
    uncovered: What was computed from private data without noise, each a clause.
    data_tag: See `same_data.tag`.
  """
  return {
    'config': config.to_dict(experiment),
    **({'solved': solution} if solution else {}),
    'versions': versions(),
    'git_revision': _git_revision(),
    **({'uncovered': list(uncovered)} if uncovered else {}),
    **({same_data.NAME: data_tag} if data_tag else {}),
    'argv': list(argv),
    'started': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
  }


def versions() -> dict[str, str]:
  """Returns the versions that a result depends on."""
  found = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {'python': platform.python_version(), **found}


def _git_revision() -> str | None:
  """Returns the checkout's commit, marked if it was changed since."""
  folder = pathlib.Path(__file__).parent
  try:
    return subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
