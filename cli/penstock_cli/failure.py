"""How a command says that it cannot go on: one line on standard error, exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Print the message and end the program with exit code 1."""
    typer.echo(f"penstock: {message}", err=True)
    raise typer.Exit(1)


@contextmanager
def reported(*expected: type[Exception]) -> Iterator[None]:
    """Turn expected errors, whose text already names the fix, into a failure without a traceback."""
    try:
        yield
    except expected as error:
        fail(str(error))


def describe_validation(error: Exception) -> str:
    """Render the first problem of a pydantic ValidationError as `field: message`."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    return f"{field}: {text}" if field and not text.startswith(field) else text
