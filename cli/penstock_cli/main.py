"""Entry point of the program `penstock`: the commands, nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_cli import (
    dataplane,
    evaluate,
    initialise,
    limits,
    roles,
    simulate,
    standalone,
    top,
    train,
    tunnels,
    validate,
    vpp,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EVERYDAY = "Everyday"
LABORATORY = "Laboratory"
ROLES = "Roles (started by pods and services)"

app.command("run", rich_help_panel=EVERYDAY)(standalone.run)
app.command("top", rich_help_panel=EVERYDAY)(top.top)
app.command("init", rich_help_panel=EVERYDAY)(initialise.init)
app.command("validate", rich_help_panel=EVERYDAY)(validate.validate)
app.command("evaluate", rich_help_panel=LABORATORY)(evaluate.evaluate)
app.command("simulate", rich_help_panel=LABORATORY)(simulate.simulate)
app.command("train", rich_help_panel=LABORATORY)(train.train)
app.command("export", rich_help_panel=LABORATORY)(train.export)
app.command("dataplane", rich_help_panel=ROLES)(dataplane.dataplane)
app.add_typer(vpp.app, name="vpp", rich_help_panel=ROLES)
app.command("agent", rich_help_panel=ROLES)(roles.agent)
app.command("operator", rich_help_panel=ROLES)(roles.operator)
app.command("decap", rich_help_panel=ROLES)(tunnels.decap)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Layer-4 load balancing for Kubernetes that learns from what it passively sees."""
    limits.raise_open_files()
