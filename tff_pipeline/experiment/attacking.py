"""An attack of the config -> the task, the protection and what is measured."""

import dataclasses

import numpy as np

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.client_work import dishonest
from tff_pipeline.client_work import protection as protections
from tff_pipeline.data import client_data
from tff_pipeline.data import poisoned

_Name = config.AttackName
_TRIGGER = (
  "the value of the attack's trigger, the largest of all training examples"
)


def poison(attack: config.Attack, task: tasks.Task, *, seed: int) -> tasks.Task:
  """Returns the task with the examples of dishonest clients poisoned.

  Its `attacked_test` are held-out examples with the label that the attack
  wants: the accuracy on them is the attack's success rate.

  Raises:
    UsageError: If the task has no such labels, or nothing to put a trigger on.
  """
  if attack.name not in (_Name.LABEL_FLIP, _Name.BACKDOOR):
    return task
  _check(attack, task)
  test, target, uncovered = task.test, attack.target_label, task.uncovered
  if attack.name is _Name.LABEL_FLIP:
    change = poisoned.flip(attack.source_label, target)
    rows = test.y == attack.source_label
    x = test.x[rows]
  else:
    value = task.train.examples.x.max()
    uncovered = (*uncovered, _TRIGGER)
    change = poisoned.backdoor(
      target, share=attack.triggered_share, value=value
    )
    rows = test.y != target
    x = poisoned.triggered(test.x[rows], value)
  return dataclasses.replace(
    task,
    train=poisoned.clients(
      task.train, who=who(attack, task, seed=seed), poison=change, seed=seed
    ),
    attacked_test=client_data.Examples(x, np.full_like(test.y[rows], target)),
    uncovered=uncovered,
  )


def who(attack: config.Attack, task: tasks.Task, *, seed: int) -> np.ndarray:
  """Returns which clients are dishonest; bool[clients]."""
  return poisoned.dishonest(
    task.train.num_clients, share=attack.share, seed=seed
  )


def protection(
  attack: config.Attack,
  protection: protections.Protection,
  task: tasks.Task,
  *,
  seed: int,
) -> protections.Protection:
  """Returns the client's part of a mechanism with the attack on updates."""
  if attack.scale is None:
    return protection
  sign = -1.0 if attack.name is _Name.SIGN_FLIP else 1.0
  return dataclasses.replace(
    protection,
    release=dishonest.release(
      protection.release,
      dishonest=who(attack, task, seed=seed),
      factor=sign * attack.scale,
    ),
    extra_spec={**protection.extra_spec, **dishonest.EXTRA_SPEC},
  )


def _check(attack: config.Attack, task: tasks.Task) -> None:
  if not isinstance(task.train, client_data.ClientData):
    raise _refuse(attack, 'a task that is read into memory', 'a streamed one')
  y, x = task.train.examples.y, task.train.examples.x
  one_label = y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
  if not one_label or 'accuracy' not in task.metric_factory():
    raise _refuse(attack, 'a task with one label an example', 'another')
  known = int(y.max()) + 1
  for leaf in ('source_label', 'target_label'):
    label = getattr(attack, leaf)
    if label is not None and label >= known:
      raise validate.error(
        f'attack.{leaf}', expected=f'a label below {known}', found=label
      )
  numbers = np.issubdtype(x.dtype, np.floating) or x.dtype == np.uint8
  if attack.name is _Name.BACKDOOR and not numbers:
    raise _refuse(attack, 'a task of real-valued inputs or pictures', x.dtype)


def _refuse(
  attack: config.Attack, expected: str, found: object
) -> validate.UsageError:
  return validate.error(
    'task.name',
    expected=f'{expected} with --attack.name={attack.name}',
    found=found,
  )
