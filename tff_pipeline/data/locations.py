"""Where the files of the data sets are."""

import os
import pathlib

VARIABLE = 'TFF_PIPELINE_DATA_DIR'


def data_dir(given: str | os.PathLike[str] | None) -> pathlib.Path:
  """Returns the folder of the data sets; it need not exist.

  Args:
    given: What `--data_dir` was set to. Unset means the environment variable
      TFF_PIPELINE_DATA_DIR, and without it the user's cache folder.
  """
  chosen = given or os.environ.get(VARIABLE)
  if chosen:
    return pathlib.Path(chosen).expanduser()
  cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(cache) / 'tff_pipeline'
