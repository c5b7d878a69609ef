"""docs/reference/cli.md: every command and option of `penstock`, from the program itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from tools.generators.output import NOTICE, REFERENCE, Files

_COMPLETION = ("--install-completion", "--show-completion")

# typer carries its own copy of click, whose classes have no public name: commands and parameters are told apart by
# what they have.
Command = Any
Parameter = Any


def render() -> Files:
    """Return the page."""
    from penstock_cli.main import app  # here, because it imports every role, and no other page needs them

    root = typer.main.get_command(app)
    sections = [_section(path, command) for path, command in _commands("penstock", root)]
    page = f"<!-- {NOTICE.format(source='cli/penstock_cli')} -->\n\n# Commands\n\n" + "\n".join(sections)
    return {REFERENCE / "cli.md": page}


def _commands(path: str, command: Command) -> Iterator[tuple[str, Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _commands(f"{path} {name}", child)


def _section(path: str, command: Command) -> str:
    text = f"## {path}\n\n{inspect.cleandoc(command.help or '')}\n"
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.opts[0] not in _COMPLETION]
    rows = "".join(_row(parameter) for parameter in shown)
    return f"{text}\n| option | default | meaning |\n|---|---|---|\n{rows}" if rows else text


def _row(parameter: Parameter) -> str:
    argument = parameter.param_type_name == "argument"
    names = parameter.name.upper() if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
    meaning = " ".join((getattr(parameter, "help", None) or "").split())
    if isinstance(parameter.envvar, str):
        meaning += f" Environment: `{parameter.envvar}`."
    return f"| `{names}` | {_default(parameter)} | {meaning} |\n"


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None or callable(value) or value in ("", (), []) else f"`{value}`"
