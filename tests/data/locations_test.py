import pathlib

from tff_pipeline.data import locations


def test_flag_wins_over_variable_over_cache(monkeypatch):
  monkeypatch.setenv('HOME', '/home/somebody')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.delenv(locations.VARIABLE, raising=False)
  cache = pathlib.Path('/home/somebody/.cache/tff_pipeline')
  assert locations.data_dir(None) == cache
  monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
  assert locations.data_dir('') == pathlib.Path('/cache/tff_pipeline')
  monkeypatch.setenv('TFF_PIPELINE_DATA_DIR', '~/sets')
  assert locations.data_dir(None) == pathlib.Path('/home/somebody/sets')
  assert locations.data_dir('here') == pathlib.Path('here')
