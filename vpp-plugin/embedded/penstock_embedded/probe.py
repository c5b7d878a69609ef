"""`penstock-probe RUN_DIR [--alive]`: exit 0 when the data plane answers on its control socket.

With `--alive` any answer will do, also that VPP is away from the process that steers it.

Kubelets start this every few seconds on every node, so it imports nothing but the standard library: a tenth of the
processor time of `penstock dataplane --probe`, which says more.
"""

import socket
import sys
from pathlib import Path

# A Request of method `hello`; tests compare it with messages.Request.
HELLO = b'{"version":1,"id":1,"method":"hello","params":{}}\n'
TIMEOUT_SECONDS = 5.0


def main() -> None:
    """Ask once; what is wrong goes to standard error."""
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--alive"]):
        sys.exit("usage: penstock-probe RUN_DIR [--alive]")
    path = Path(sys.argv[1]) / "control.sock"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(str(path))
            connection.sendall(HELLO)
            answer = connection.recv(4096)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror or error}; check that `penstock dataplane` runs")
    if (b'"id":1' if sys.argv[2:] else b'"instance_id"') not in answer:
        sys.exit(f"{path}: not the answer of a data plane: {answer[:80]!r}")


if __name__ == "__main__":
    main()
