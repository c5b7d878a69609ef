"""Addresses that VIPs may have: what an operator hands down in a file that no agent can write.

Without the file, or where it cannot be read, all addresses are allowed: it is the operator's, so that it is missing is
no doing of an agent's, and traffic is worth more than the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_embedded.messages import Address

log = structlog.get_logger()


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal[1]
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Allowed:
    """Ranges of addresses, by IP version."""

    ranges: tuple[tuple[int, int, int], ...]  # version, first and last

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(version == address.version and first <= number <= last for version, first, last in self.ranges)


def load(path: Path | None) -> Allowed | None:
    """Return the addresses that are allowed; None for all."""
    if path is None:
        return None
    try:
        file = _File.model_validate_json(path.read_bytes())
        return Allowed(tuple(_range(block) for block in file.blocks))
    except FileNotFoundError:
        log.info("addresses of VIPs are not bounded yet: the operator's file is missing", path=str(path))
    except (OSError, ValidationError, ValueError) as error:
        log.warning("addresses of VIPs are not bounded: unreadable file", path=str(path), error=str(error))
    return None


def _range(block: str) -> tuple[int, int, int]:
    """Read a network, a range or an address, as AddressPools write them."""
    if "/" in block:
        network = ip_network(block)
        return network.version, int(network[0]), int(network[-1])
    first_text, _, last_text = block.partition("-")
    first = ip_address(first_text)
    last = ip_address(last_text or first_text)
    if first.version != last.version:
        raise ValueError(f"{block}: ends of two families")
    return first.version, int(first), int(last)
