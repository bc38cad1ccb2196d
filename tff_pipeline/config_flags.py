"""Config leaves as absl flags: one dotted flag a leaf, `None` while unset.

Names, types, help texts and rules come from the declarations in `config`.
Precedence: dataclass default < experiment file < --flagfile < command line.
This module defines flags and reads the ones it is handed; only the binaries in
`experiments/` touch the command line.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import enum
import textwrap
from typing import Any

from absl import flags

from tff_pipeline import config

TOP_SECTION = 'run'
"""Heading of the leaves of `Experiment` itself."""

_BATCHES = ('client.batch_size', 'client.sampling_rate')
_TARGET = 'privacy.target_epsilon'
_SOLVE_FOR = 'privacy.solve_for'
_WORDS = {int: 'a whole number', float: 'a number', str: 'text'}
_PLACEHOLDERS = {int: 'N', float: 'X', str: 'TEXT'}


def leaves() -> dict[str, dataclasses.Field]:
  """Returns flag name -> dataclass field of every leaf, sections in order."""
  sections = {}
  top = {}
  for field in dataclasses.fields(config.Experiment):
    if dataclasses.is_dataclass(field.type):
      for leaf in dataclasses.fields(field.type):
        sections[f'{field.name}.{leaf.name}'] = leaf
    else:
      top[field.name] = field
  return sections | top


def section(name: str) -> str:
  """Returns the heading that a leaf belongs under.

  >>> section('privacy.delta'), section('rounds')
  ('privacy', 'run')
  """
  head, dot, _ = name.partition('.')
  return head if dot else TOP_SECTION


def define(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines one flag per leaf of `config.Experiment`, all unset."""
  for name, field in leaves().items():
    flag = flags.Flag(
      _LeafParser(config.leaf_type(field)),
      flags.ArgumentSerializer(),
      name,
      default=None,
      help_string=_describe(name, field),
    )
    flags.DEFINE_flag(flag, flag_values, module_name=section(name))


def given(flag_values: flags.FlagValues) -> dict[str, Any]:
  """Returns the leaves that were given as flags, by flag name."""
  values = {name: flag_values[name].value for name in leaves()}
  return {name: value for name, value in values.items() if value is not None}


def apply(
  experiment: config.Experiment | None, given: Mapping[str, Any]
) -> config.Experiment:
  """Returns the experiment with the given leaves in place of its own.

  Overriding a choice (`--client.optimizer=adam`) drops the experiment's leaves
  that the new choice does not use (`client.momentum`). Asking for a target
  epsilon drops the leaf that it solves for, and giving that leaf drops the
  target; so it is with batch size and sampling rate. What was given as a flag
  is never dropped: if it is unused or contradicts another flag, that is an
  error.

  Args:
    experiment: From an experiment file; `None` for the defaults alone.
    given: Flag name -> value, as from `given`.

  Raises:
    UsageError: If the result is not a valid experiment.
  """
  fields = leaves()
  for name, value in given.items():
    if name in fields:  # A bad value is the first news, before missing ones.
      config.checked_leaf(name, fields[name], value)
  inherited = {} if experiment is None else _flatten(config.to_dict(experiment))
  inherited = _without_unused(inherited, given)
  inherited = _without_contradicted(inherited, given)
  return config.from_dict(_nest(inherited | dict(given)))


def parse_leaf(field: dataclasses.Field, text: str) -> int | float | str:
  """Returns the value that a text is for a leaf; `config` checks its bounds.

  Raises:
    ValueError: If it is not of the leaf's type; the message says what is.
  """
  return _LeafParser(config.leaf_type(field)).parse(text)


def flagfiles_first(argv: Sequence[str]) -> list[str]:
  """Moves --flagfile arguments to the front, so that the command line wins.

  absl itself lets the later of the two win, wherever the flag file stands.

  >>> flagfiles_first(['train', '--rounds=5', '--flagfile=base.flags'])
  ['train', '--flagfile=base.flags', '--rounds=5']
  """
  files, others = [], []
  arguments = iter(argv[1:])
  for argument in arguments:
    if argument == '--':
      others += [argument, *arguments]
    elif argument in ('--flagfile', '-flagfile'):
      files += [argument, *(a for a in [next(arguments, None)] if a)]
    elif argument.startswith(('--flagfile=', '-flagfile=')):
      files.append(argument)
    else:
      others.append(argument)
  return [*argv[:1], *files, *others]


def suggestions(name: str, flag_values: flags.FlagValues) -> list[str]:
  """Returns the flags that an unknown name may have meant without its section.

  absl suggests by spelling, so it knows no answer to `--momentum`.

  >>> flag_values = flags.FlagValues()
  >>> define(flag_values)
  >>> suggestions('momentum', flag_values)
  ['client.momentum', 'server.momentum']
  """
  last = name.rpartition('.')[-1]
  return [known for known in flag_values if known.endswith('.' + last)]


def help_text(
  flag_values: flags.FlagValues, *, run_flags: Iterable[flags.Flag] = ()
) -> str:
  """Returns the help of all leaves under their section headings.

  Args:
    flag_values: Where flags were defined; leaves that were not are left out.
    run_flags: Flags of the binary itself, shown first under `run`.
  """
  groups: dict[str, list[str]] = {}
  for name, field in leaves().items():
    if name in flag_values:
      entry = _entry(f'{name}={_placeholder(field)}', flag_values[name].help)
      groups.setdefault(section(name), []).append(entry)
  own = [_own_entry(flag) for flag in run_flags]
  if own:
    groups[TOP_SECTION] = own + groups.get(TOP_SECTION, [])
  return '\n\n'.join(
    '\n'.join([heading + ':', *entries]) for heading, entries in groups.items()
  )


class _LeafParser(flags.ArgumentParser):
  """Parses the text of one leaf; bounds and choices are checked by `config`."""

  def __init__(self, leaf_type: type) -> None:
    self._type = str if issubclass(leaf_type, enum.StrEnum) else leaf_type

  def flag_type(self) -> str:
    return self._type.__name__

  def parse(self, argument: str) -> int | float | str:
    try:
      value = self._type(argument)
    except ValueError:
      value = ''
    if value == '':
      raise ValueError(f'expected {_WORDS[self._type]}')
    return value


def _describe(name: str, field: dataclasses.Field) -> str:
  """Returns the help text: meaning, bounds, default, and when it is used."""
  rule = field.metadata['rule']
  facts = [
    f'{bound.replace("_", " ")} {limit:g}'
    for bound, limit in rule.bounds.items()
  ]
  if field.default is not None:
    facts.append(f'default {field.default}')
  use = 'required' if rule.required else ''
  if rule.used_by is not None:
    choice, users = rule.used_by
    prefix = name.rpartition('.')[0]
    flag = f'{prefix}.{choice}' if prefix else choice
    use = f'{use or "used"} with --{flag}=' + ' or '.join(users)
  facts += [use] if use else []
  return f'{rule.help} [{"; ".join(facts)}]' if facts else rule.help


def _placeholder(field: dataclasses.Field) -> str:
  leaf_type = config.leaf_type(field)
  if issubclass(leaf_type, enum.StrEnum):
    return '<' + '|'.join(leaf_type) + '>'
  return _PLACEHOLDERS[leaf_type]


def _entry(usage: str, text: str) -> str:
  indent = ' ' * 6
  body = textwrap.fill(
    text, 80, initial_indent=indent, subsequent_indent=indent
  )
  return f'  --{usage}\n{body}'


def _own_entry(flag: flags.Flag) -> str:
  if flag.boolean:
    usage = f'[no]{flag.name}'
  else:
    kinds = {'int': int, 'float': float}
    kind = kinds.get(flag.flag_type(), str)
    usage = f'{flag.name}={_PLACEHOLDERS[kind]}'
  default = '' if flag.default is None else f' [default {flag.default}]'
  return _entry(usage, f'{flag.help}{default}')


def _flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
  flat = {}
  for name, value in nested.items():
    if isinstance(value, Mapping):
      flat |= {f'{name}.{leaf}': v for leaf, v in value.items()}
    else:
      flat[name] = value
  return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
  nested: dict[str, Any] = {}
  for name, value in flat.items():
    head, dot, leaf = name.partition('.')
    if dot:
      nested.setdefault(head, {})[leaf] = value
    else:
      nested[head] = value
  return nested


def _without_unused(
  inherited: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
  """Drops inherited leaves that the choices, as overridden, do not use."""
  fields = leaves()
  while True:
    values = inherited | dict(given)
    used = {k: v for k, v in inherited.items() if _is_used(k, values, fields)}
    if used == inherited:
      return used
    inherited = used  # A dropped leaf may have been a choice itself.


def _is_used(
  name: str, values: Mapping[str, Any], fields: Mapping[str, dataclasses.Field]
) -> bool:
  rule = fields[name].metadata['rule']
  if rule.used_by is None:
    return True
  choice, users = rule.used_by
  prefix, dot, _ = name.rpartition('.')
  flag = prefix + dot + choice
  return values.get(flag, fields[flag].default) in users


def _without_contradicted(
  inherited: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
  """Drops one side of two that exclude each other if the other is given.

  Batch size and sampling rate; target epsilon and the leaf that it solves for.
  """
  if any(name in given for name in _BATCHES):
    inherited = {k: v for k, v in inherited.items() if k not in _BATCHES}
  values = inherited | dict(given)
  if _TARGET not in values:
    return inherited
  wanted = values.get(_SOLVE_FOR, config.SolveFor.NOISE_MULTIPLIER)
  solved = [name for name in leaves() if name.rpartition('.')[-1] == wanted]
  if _TARGET in given or _SOLVE_FOR in given:
    dropped = solved
  elif any(name in given for name in solved):
    dropped = [_TARGET, _SOLVE_FOR]
  else:
    dropped = []
  return {k: v for k, v in inherited.items() if k not in dropped}
