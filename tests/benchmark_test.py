"""The benchmark: its arithmetic, its usage errors, and one small run."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from experiments import benchmark_memory
from experiments import benchmark_page
from tff_pipeline.engines import threads


def _rows():
  """Two engines, cohort 10; the first round must not count."""
  seconds = {
    'stock': [9.0, 0.3, 0.1, 0.2],
    'in_process': [5.0, 0.01, 0.02, 0.03],
    'bare': [4.0, 0.01, 0.01, 0.01],
  }
  return pd.DataFrame(
    {
      'model': '2nn',
      'cohort': 10,
      'engine': engine,
      'round': number,
      'seconds': value,
      'peak_mb': 100.0 + number,
    }
    for engine, values in seconds.items()
    for number, value in enumerate(values)
  )


def test_summary_takes_medians_without_the_first_round():
  (row,) = benchmark_page.summary(_rows()).to_dict('records')
  assert row == {
    'case': '2nn/10',
    'stock': '20.00 ± 5.00',
    'in_process': '2.00 ± 0.50',
    'bare': '1.00 ± 0.00',
    'stock/in_process': '10.00',
    'in_process/bare': '2.00',
    'first s, in_process': '5.00',
    'peak MB, in_process': '103',
    'first s, stock': '9.00',
    'peak MB, stock': '103',
  }


def test_engines_that_were_not_timed_leave_no_ratio():
  rows = _rows()
  (row,) = benchmark_page.summary(rows[rows['engine'] != 'stock']).to_dict(
    'records'
  )
  assert 'stock/in_process' not in row
  assert row['in_process/bare'] == '2.00'


def test_page_holds_what_there_is(tmp_path):
  _rows().to_csv(tmp_path / 'benchmark_cases.csv', index=False)
  memory = pd.DataFrame({'round': np.arange(1, 101), 'rss_mb': 500.0})
  memory.loc[99, 'rss_mb'] = 510.0
  memory.to_csv(tmp_path / 'benchmark_memory.csv', index=False)
  benchmark_page.write(tmp_path)
  page = (tmp_path / 'benchmark.md').read_text()
  assert '| 2nn/10 | 20.00 ± 5.00 |' in page
  assert '500 MB after a tenth of the rounds, +2.00%' in page
  assert 'Seconds of a fresh process' not in page
  assert (tmp_path / 'benchmark.png').read_bytes().startswith(b'\x89PNG')


def test_a_mechanism_is_compared_round_by_round():
  rows = (
    _rows().query('engine != "bare"').rename(columns={'engine': 'mechanism'})
  )
  table = benchmark_page.mechanisms(rows)
  # The rounds' ratios are 1/30, 1/5 and 3/20.
  assert table.to_dict('records') == [
    {
      'mechanism': 'stock',
      'ms a client': '20.000 ± 5.000',
      'over stock': '1.000',
    },
    {
      'mechanism': 'in_process',
      'ms a client': '2.000 ± 0.500',
      'over stock': '0.150',
    },
  ]


def test_peak_sees_memory_that_is_freed_again():
  with benchmark_memory.Peak() as nothing:
    pass
  with benchmark_memory.Peak() as peak:
    del_me = np.ones(16_000_000)  # 122 MB
    del del_me
  assert 110 < peak.megabytes - nothing.megabytes < 140
  with benchmark_memory.Peak() as again:
    pass
  assert again.megabytes < peak.megabytes - 100


def test_threads_stay_where_a_cohort_cannot_fill_the_cores(monkeypatch):
  monkeypatch.setattr('os.cpu_count', lambda: 8)
  assert not threads.prefer_clients(7)


def test_gpu_keeps_its_threads(monkeypatch):
  monkeypatch.setattr(
    threads.tf.config, 'list_physical_devices', lambda kind: [kind]
  )
  assert not threads.prefer_clients(1000)


def _run(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.benchmark', *flags],
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  'flag, found',
  [
    ('--cases=2nn/0', '2nn/0'),
    ('--cases=3nn/5', '3nn'),
    ('--engines=stock,flower', 'flower'),
    ('--scaling=models', 'models'),
    ('--mechanisms=laplace', 'laplace'),
  ],
)
def test_usage_errors_come_before_tensorflow(flag, found):
  done = _run(flag)
  assert done.returncode == 2
  assert done.stderr.startswith('error:')
  assert found in done.stderr


@pytest.mark.slow
def test_all_parts_run(tmp_path):
  done = _run(
    '--cases=2nn/2',
    '--mechanisms=none,gaussian,gaussian_adaptive,local,dp_sgd',
    '--rounds=1',
    '--memory_rounds=12',
    '--startup=1',
    f'--output_dir={tmp_path}',
  )
  assert done.returncode == 0, done.stderr
  assert '2nn/2' in done.stdout
  rows = pd.read_csv(tmp_path / 'benchmark_cases.csv')
  assert set(rows['engine']) == {
    'stock',
    'stock_onednn',
    'dense',
    'in_process',
    'bare',
  }
  assert (rows['seconds'] > 0).all()
  private = pd.read_csv(tmp_path / 'benchmark_mechanisms.csv')
  assert list(private[private['round'] == 1]['mechanism']) == [
    'none',
    'gaussian',
    'gaussian_adaptive',
    'local',
    'dp_sgd',
  ]
  assert len(pd.read_csv(tmp_path / 'benchmark_memory.csv')) == 12
  assert (tmp_path / 'benchmark.md').exists()
