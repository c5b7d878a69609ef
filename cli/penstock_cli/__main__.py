"""`python -m penstock_cli`: the program, where its script is not on PATH."""

from penstock_cli.main import app

app(prog_name="penstock")
