"""Real processes, but small ones: a script that counts rounds."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from tff_pipeline import validate
from tff_pipeline.sweeps import execution
from tff_pipeline.sweeps import scripts
from tff_pipeline.sweeps import view

State = execution.State

# Behaves as `experiments.train` does: resumes, saves when interrupted, exits.
_RUN = textwrap.dedent(
  """
  import json, os, pathlib, signal, sys, time
  folder, rounds, seconds, crash = sys.argv[1:5]
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  stop = []
  signal.signal(signal.SIGINT, lambda *_: stop.append(1))
  signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
  with open(folder / 'starts', 'a') as file:
    file.write(f'{time.time()} {os.environ["TF_NUM_INTRAOP_THREADS"]}\\n')
  metrics = folder / 'metrics.csv'
  done = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
  if not done:
    metrics.write_text('round\\n')
  for r in range(done + 1, int(rounds) + 1):
    time.sleep(float(seconds))
    if crash == str(r):
      print('disk full', flush=True)
      sys.exit(1)
    with open(metrics, 'a') as file:
      file.write(f'{r}\\n')
    if stop and r < int(rounds):
      sys.exit(130)
  (folder / 'summary.json').write_text(json.dumps({'status': 'finished'}))
  with open(folder / 'ends', 'a') as file:
    file.write(f'{time.time()}\\n')
  """
)


def _job(folder, name, *, rounds=3, seconds=0.02, crash=0):
  where = folder / name
  return execution.Job(
    name=name,
    command=(
      sys.executable,
      '-c',
      _RUN,
      str(where),
      str(rounds),
      str(seconds),
      str(crash),
    ),
    folder=where,
    rounds=rounds,
  )


def _launch(folder, threads=1):
  return execution.Local(threads, folder / 'logs', folder)


def _run(jobs, folder, *, processes=2, watch=lambda _: None):
  return execution.run(
    jobs, processes=processes, launch=_launch(folder), view=watch
  )


def _starts(job):
  return (job.folder / 'starts').read_text().splitlines()


def test_all_run_and_never_more_at_a_time(tmp_path):
  # Long enough for two to be seen at a time, however busy the machine.
  jobs = [_job(tmp_path, f'arm/seed={i}', seconds=0.3) for i in range(5)]
  most = []
  ended = _run(
    jobs, tmp_path, watch=lambda p: most.append(p.number(State.RUNNING))
  )
  assert set(ended.states.values()) == {State.FINISHED}
  assert max(most) == 2
  assert ended.rounds == (15, 15)


def test_a_run_that_ends_before_its_plan_leaves_nothing_to_wait_for(tmp_path):
  short = dataclasses.replace(_job(tmp_path, 'short', rounds=3), rounds=400)
  ended = _run([short, _job(tmp_path, 'whole', rounds=4)], tmp_path)
  assert ended.rounds == (7, 7)
  assert ended.seconds_left() == 0


def test_runs_are_side_by_side(tmp_path):
  jobs = [_job(tmp_path, f'{i}', seconds=0.5) for i in range(2)]
  _run(jobs, tmp_path)
  starts = [float(_starts(job)[0].split()[0]) for job in jobs]
  ends = [float((job.folder / 'ends').read_text()) for job in jobs]
  assert max(starts) < min(ends)


def test_threads_are_divided(tmp_path):
  job = _job(tmp_path, 'a')
  execution.run(
    [job], processes=1, launch=_launch(tmp_path, 3), view=lambda _: None
  )
  assert _starts(job)[0].split()[1] == '3'


def test_failed_run_is_reported_and_stops_nobody(tmp_path):
  jobs = [
    _job(tmp_path, 'a/seed=0', crash=2),
    _job(tmp_path, 'b/seed=0'),
    _job(tmp_path, 'c/seed=0'),
  ]
  ended = _run(jobs, tmp_path, processes=1)
  assert list(ended.states.values()) == [
    State.FAILED,
    State.FINISHED,
    State.FINISHED,
  ]
  (line,) = view.failures(ended, tmp_path / 'logs')
  assert 'a/seed=0 (exit status 1): disk full' in line


_OUT_OF_MEMORY = {
  # An allocation that is refused, and the kernel's way out.
  'refused': (
    'import resource\n'
    'resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))\n'
    'bytearray(1 << 30)',
    r'a \(exit status 1\): MemoryError',
  ),
  'killed': (
    'import os, signal\nos.kill(os.getpid(), signal.SIGKILL)',
    r'a \(killed, as the system does when memory runs out\): ',
  ),
}


@pytest.mark.parametrize(
  'script, said', _OUT_OF_MEMORY.values(), ids=_OUT_OF_MEMORY
)
def test_arm_without_memory_is_reported_and_started_again(
  tmp_path, script, said
):
  folder = tmp_path / 'a'
  once = f'if not os.path.exists({str(tmp_path / "tried")!r}):\n'
  once += f'  open({str(tmp_path / "tried")!r}, "w").close()\n'
  once += textwrap.indent(script, '  ') + '\n'
  arm = execution.Job(
    name='a',
    command=(sys.executable, '-c', 'import os\n' + once + _RUN)
    + (str(folder), '3', '0.02', '0'),
    folder=folder,
    rounds=3,
  )
  other = _job(tmp_path, 'b')
  ended = _run([arm, other], tmp_path, processes=1)
  assert ended.states == {'a': State.FAILED, 'b': State.FINISHED}
  (line,) = view.failures(ended, tmp_path / 'logs')
  assert re.search(said, line), line
  ended = _run([arm, other], tmp_path, processes=1)
  assert set(ended.states.values()) == {State.FINISHED}


def test_exit_status_0_without_a_summary_is_a_failure(tmp_path):
  job = execution.Job(
    name='a', command=(sys.executable, '-c', ''), folder=tmp_path, rounds=1
  )
  assert _run([job], tmp_path).states == {'a': State.FAILED}


def test_command_that_does_not_exist_is_a_failure(tmp_path):
  jobs = [
    execution.Job(
      name='a', command=('/no/such/python',), folder=tmp_path / 'a', rounds=1
    ),
    _job(tmp_path, 'b'),
  ]
  ended = _run(jobs, tmp_path, processes=1)
  assert ended.states == {'a': State.FAILED, 'b': State.FINISHED}


def test_finished_runs_are_not_started_again(tmp_path):
  jobs = [_job(tmp_path, f'{i}') for i in range(3)]
  _run(jobs[:2], tmp_path)
  _run(jobs, tmp_path)
  assert [len(_starts(job)) for job in jobs] == [1, 1, 1]


def test_run_that_stopped_at_its_budget_is_started_again(tmp_path):
  job = _job(tmp_path, 'a')
  _run([job], tmp_path)
  stopped = json.dumps({'status': 'stopped at max_epsilon'})
  (job.folder / 'summary.json').write_text(stopped)
  _run([job], tmp_path)
  assert len(_starts(job)) == 2


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_saves_and_continues(tmp_path, number):
  before = signal.getsignal(signal.SIGINT)
  jobs = [_job(tmp_path, f'{i}', rounds=40, seconds=0.05) for i in range(4)]

  def interrupt(progress):
    if progress.rounds[0] >= 3 and not sent:
      sent.append(1)
      os.kill(os.getpid(), number)

  sent = []
  ended = _run(jobs, tmp_path, watch=interrupt)
  stopped = list(ended.states.values())
  assert State.INTERRUPTED in stopped and State.WAITING in stopped
  assert State.FAILED not in stopped
  rounds = [job.rounds_done() for job in jobs]
  assert 0 < sum(rounds) < 160
  ended = _run(jobs, tmp_path)
  assert set(ended.states.values()) == {State.FINISHED}
  for job in jobs:  # Every round once: nothing was lost or done again.
    rows = (job.folder / 'metrics.csv').read_text().split()
    assert rows == ['round', *map(str, range(1, 41))]
  assert signal.getsignal(signal.SIGINT) is before


def test_runs_end_with_the_sweep(tmp_path):
  """However it ends: SIGKILL leaves nobody to tell them."""
  job = _job(tmp_path, 'a', rounds=1000, seconds=0.1)
  program = textwrap.dedent(
    f"""
    import pathlib
    from tff_pipeline.sweeps import execution
    folder = pathlib.Path({str(tmp_path)!r})
    job = execution.Job(
      name='a', command={job.command!r}, folder=folder / 'a', rounds=1000)
    execution.run([job], processes=1,
      launch=execution.Local(1, folder / 'logs', folder), view=lambda _: None)
    """
  )
  sweep = subprocess.Popen(
    [sys.executable, '-c', program], cwd=pathlib.Path(__file__).parents[2]
  )
  deadline = time.monotonic() + 30
  while job.rounds_done() < 1 and time.monotonic() < deadline:
    time.sleep(0.05)
  (child,) = psutil.Process(sweep.pid).children()
  sweep.kill()
  sweep.wait()
  _, alive = psutil.wait_procs([child], timeout=5)
  assert not alive


def test_two_sweeps_do_not_share_a_directory(tmp_path):
  with (
    execution.owned(tmp_path),
    pytest.raises(validate.UsageError, match='locked'),
    execution.owned(tmp_path),
  ):
    pass
  with execution.owned(tmp_path):  # Free again.
    pass


def test_time_left_is_that_of_what_is_left(tmp_path):
  job = _job(tmp_path, 'a', rounds=10)
  job.folder.mkdir()
  (job.folder / 'metrics.csv').write_text('round\n1\n2\n3\n4\n')
  progress = execution.Progress(
    jobs=[job],
    states={'a': State.RUNNING},
    rounds_before=2,
    started=time.monotonic() - 10.0,
  )
  assert progress.seconds_left() == pytest.approx(30.0, rel=0.01)
  progress.states['a'] = State.FAILED
  assert progress.seconds_left() == 0.0


def test_memory_and_cores_limit_runs(monkeypatch):
  gib = 2**30
  assert execution.side_by_side(9, cores=8, free_bytes=100 * gib) == 8
  assert execution.side_by_side(9, cores=8, free_bytes=4 * gib) == 2
  assert execution.side_by_side(9, cores=8, free_bytes=0.1 * gib) == 1
  assert execution.side_by_side(2, cores=8, free_bytes=100 * gib) == 2


def test_no_run_starts_while_memory_is_short(tmp_path, monkeypatch):
  memory = psutil.virtual_memory()._replace(available=10)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: memory)
  jobs = [_job(tmp_path, f'{i}') for i in range(3)]
  most = []
  ended = _run(
    jobs, tmp_path, watch=lambda p: most.append(p.number(State.RUNNING))
  )
  assert max(most) == 1 and ended.number(State.FINISHED) == 3


def test_outside_the_main_thread_signals_are_left_alone(tmp_path):
  before = signal.getsignal(signal.SIGINT)
  job = _job(tmp_path, 'a')
  thread = threading.Thread(target=_run, args=([job], tmp_path))
  thread.start()
  thread.join()
  assert job.is_finished and signal.getsignal(signal.SIGINT) is before


def test_scripts_have_one_line_for_each_run(tmp_path):
  jobs = [
    execution.Job(
      name=name,
      command=('python', '-m', 'x', f'--name={name}'),
      folder=tmp_path,
      rounds=1,
    )
    for name in ('a', "b's c")
  ]
  lines = scripts.shell(jobs).splitlines()
  assert lines[0] == 'python -m x --name=a'
  told = subprocess.run(
    ['sh', '-c', f'set -- {lines[1]}; echo "$4"'],
    capture_output=True,
    text=True,
  )
  assert told.stdout == "--name=b's c\n"


def test_slurm_task_runs_its_line(tmp_path):
  jobs = [
    execution.Job(
      name=f'{i}',
      command=('sh', '-c', f'echo "{i} $TF_NUM_INTRAOP_THREADS"'),
      folder=tmp_path,
      rounds=1,
    )
    for i in range(3)
  ]
  script = tmp_path / 'array.sh'
  script.write_text(scripts.slurm(jobs, threads=4))
  assert '#SBATCH --array=0-2\n' in script.read_text()
  done = subprocess.run(
    ['bash', script],
    env=dict(os.environ) | {'SLURM_ARRAY_TASK_ID': '2'},
    capture_output=True,
    text=True,
  )
  assert done.stdout == '2 4\n'


def test_ray_runs_and_interrupts_the_same_commands(tmp_path):
  pytest.importorskip('ray', reason='the extra `ray` is not installed')
  from tff_pipeline.sweeps import ray_cluster

  jobs = [_job(tmp_path, f'{i}', rounds=6, seconds=0.3) for i in range(3)]
  jobs.append(_job(tmp_path, 'bad', crash=1))
  launch = ray_cluster.Ray(
    ray_cluster.HERE, threads=1, logs=tmp_path / 'logs', cwd=tmp_path
  )
  sent = []

  def interrupt(progress):
    if progress.rounds[0] >= 3 and not sent:
      sent.append(1)
      os.kill(os.getpid(), signal.SIGINT)

  try:
    stopped = execution.run(jobs, processes=4, launch=launch, view=interrupt)
    assert State.INTERRUPTED in stopped.states.values()
    ended = execution.run(jobs, processes=4, launch=launch, view=lambda _: None)
  finally:
    launch.close()
  assert ended.states == {
    '0': State.FINISHED,
    '1': State.FINISHED,
    '2': State.FINISHED,
    'bad': State.FAILED,
  }
  for job in jobs[:3]:
    rows = (job.folder / 'metrics.csv').read_text().split()
    assert rows == ['round', *map(str, range(1, 7))]


def test_ray_that_is_missing_is_named(tmp_path, monkeypatch):
  from tff_pipeline.sweeps import ray_cluster

  monkeypatch.setitem(sys.modules, 'ray', None)
  with pytest.raises(validate.UsageError, match='--ray: expected Ray'):
    ray_cluster.Ray('auto', threads=1, logs=tmp_path, cwd=tmp_path)
