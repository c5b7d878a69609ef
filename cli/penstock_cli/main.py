"""Entry point of the program `penstock`."""

import typer

app = typer.Typer(no_args_is_help=True, help="Layer-4 load balancing for Kubernetes that learns.")


@app.callback()
def main() -> None:
    """Layer-4 load balancing for Kubernetes that learns."""
