"""`penstock decap`: a server's side of forwarding GRE."""

from __future__ import annotations

import os
import signal
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

import typer

from penstock_cli import logs
from penstock_cli.failure import fail, reported
from penstock_cli.roles import LogLevel


def decap(
    address: Annotated[
        list[str], typer.Option("--address", "-a", help="Address of a VIP that this server is behind; repeatable.")
    ],
    device: Annotated[
        str, typer.Option(help="Name of the TUN device to make; it goes when the program ends.")
    ] = "decap",
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Take a VIP's packets out of GRE on a server, for tests and for kernels without GRE.

    Needs root with NET_ADMIN and NET_RAW, and /dev/net/tun. Answers leave by the server's own routes, from the
    VIP's address: they must reach clients without being dropped as spoofed. Stops at SIGTERM.
    """
    from penstock_embedded.decapsulator import Decapsulator
    from penstock_node.errors import TunError

    logs.configure(log_level)
    addresses = [_address(text) for text in address]
    stop, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(wake, b"x"))
    with reported(TunError, OSError), Decapsulator(device, addresses) as decapsulator:
        typer.echo(f"taking packets for {', '.join(map(str, addresses))} out of GRE, on device {device}")
        decapsulator.run(stop)


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        fail(f"--address {text}: is no IP address; write it like 203.0.113.10 or 2001:db8::10")
