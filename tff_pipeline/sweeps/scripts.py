"""A sweep as a script for other machines.

Each line is one run, and the same command again resumes it. Results are
collected by `python -m experiments.report` from a directory that all share, or
that was copied together.
"""

from collections.abc import Sequence
import shlex

from tff_pipeline.sweeps import execution


def shell(jobs: Sequence[execution.Job]) -> str:
  """Returns one line for each run, for `sh`, `parallel` or `xargs`."""
  return ''.join(shlex.join(job.command) + '\n' for job in jobs)


def slurm(jobs: Sequence[execution.Job], *, threads: int) -> str:
  """Returns a job array for `sbatch`: one line for each run, one task each.

  Args:
    jobs: The runs.
    threads: Cores of each task.
  """
  lines = [f'  {shlex.quote(shlex.join(job.command))}' for job in jobs]
  settings = [
    f'export {name}={value}'
    for name, value in execution.environment(threads).items()
  ]
  return '\n'.join(
    [
      '#!/bin/bash',
      f'#SBATCH --array=0-{len(jobs) - 1}',
      f'#SBATCH --cpus-per-task={threads}',
      # train saves and stops at SIGTERM; the same task again resumes.
      '#SBATCH --signal=B:TERM@60',
      '#SBATCH --requeue',
      *settings,
      'runs=(',
      *lines,
      ')',
      'eval "exec ${runs[$SLURM_ARRAY_TASK_ID]}"',
      '',
    ]
  )
