"""`penstock decap`: a server's side of forwarding GRE."""

from __future__ import annotations

import os
import signal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

import typer

from penstock_cli import logs
from penstock_cli.failure import fail, reported
from penstock_cli.roles import LogLevel

_PROTOCOLS = {"TCP": 6, "UDP": 17}


def decap(
    address: Annotated[
        list[str], typer.Option("--address", "-a", help="Address of a VIP that this server is behind; repeatable.")
    ],
    balancer: Annotated[
        list[str],
        typer.Option(
            "--from",
            "-f",
            help="Address or network of the load-balancing nodes, whose tunnels alone are taken; repeatable.",
        ),
    ],
    port: Annotated[
        list[str] | None,
        typer.Option("--port", "-p", help="Port of the VIPs, such as 80/TCP; repeatable. Default: all ports."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Name of the TUN device to make; it goes when the program ends.")
    ] = "decap",
    log_level: LogLevel = logs.LogLevel.INFO,
) -> None:
    """Take a VIP's packets out of GRE on a server, for tests and for kernels without GRE.

    What comes out arrives on the device, past this server's rules for other devices: only well-formed packets of
    clients to the VIPs are taken, from the given nodes. Packets that are refused are counted in the log.

    Needs root with NET_ADMIN and NET_RAW, and /dev/net/tun. Answers leave by the server's own routes, from the
    VIP's address: they must reach clients without being dropped as spoofed. Stops at SIGTERM.
    """
    from penstock_embedded.decapsulator import Admission, Decapsulator
    from penstock_node.errors import TunError

    logs.configure(log_level)
    addresses = [_address(text) for text in address]
    admission = Admission(
        vips=frozenset(addresses),
        balancers=tuple(_network(text) for text in balancer),
        ports=frozenset(_port(text) for text in port) if port else None,
    )
    stop, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(wake, b"x"))
    with reported(TunError, OSError), Decapsulator(device, admission) as decapsulator:
        typer.echo(f"taking packets for {', '.join(map(str, addresses))} out of GRE, on device {device}")
        decapsulator.run(stop)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        fail(f"--from {text}: {error}; write it like 192.0.2.1 or 192.0.2.0/24")


def _port(text: str) -> tuple[int, int]:
    number, _, protocol = text.partition("/")
    if not number.isascii() or not number.isdigit() or not 0 < int(number) < 65536 or protocol not in _PROTOCOLS:
        fail(f"--port {text}: is no port; write it like 80/TCP or 53/UDP")
    return _PROTOCOLS[protocol], int(number)


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        fail(f"--address {text}: is no IP address; write it like 203.0.113.10 or 2001:db8::10")
