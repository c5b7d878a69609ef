"""How far `n_active` is from what servers know: the table of docs/features.md, one row per kind of load.

Run as root: `python -m tools.bench.active_flows`; name kinds to measure only those. A minute and a half for long polls,
some seconds for each of the others. It is no part of `make bench`: nothing here is a speed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.support.active_flows import compare
from tests.support.dataplane import running_dataplane
from tests.support.lab import lab
from tests.support.outstanding import KINDS, WEBSOCKETS

SECONDS = {"long_poll": 90.0}  # twice as long as an answer takes


NAMES = [*KINDS, *WEBSOCKETS]


def main() -> None:
    """Print a row per kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*NAMES, []], metavar="KIND", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a load")
    options = parser.parse_args()
    print("| load | the server knows | n_active | error | longer per request |\n|---|---|---|---|---|")
    with lab("bench-act", 1, start_servers=False) as built, running_dataplane(built) as dataplane:
        for kind in options.kinds or NAMES:
            with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
                found = compare(built, dataplane, Path(directory), kind, SECONDS.get(kind, options.seconds))
            error = f"{found.error:+.1%}" if found.known else "all of it"
            excess = f"{found.excess * 1e3:.1f} ms" if found.rate else ""
            row = [kind, f"{found.known:.1f}", f"{found.measured:.1f}", error, excess]
            print(f"| {' | '.join(row)} |", flush=True)
        dataplane.withdraw()


if __name__ == "__main__":
    main()
