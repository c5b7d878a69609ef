"""How many flows a flow table has room for: a number that somebody gave, or one that fits the machine's memory.

The automatic size is a power of two that depends on amounts of memory alone that a restart finds again, so that the
next process attaches the arena. Where such an amount has changed, the core imports the arena into one of the new size:
a larger one takes all flows, a smaller one open flows first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import structlog
from penstock_node.memory import Memory, memory_of
from pydantic import BeforeValidator, Field

FLOWS_MIN = 1024
FLOWS_MAX = 4_194_304  # 64 partitions, whose entries have numbers of 16 bits
AUTO = "auto"

SMALLEST = 65_536
LARGEST = 1_048_576
BYTES_PER_FLOW = 512  # LBRL_FLOW_BYTES of the core, for which tables fit twice

# Shares of memory that a flow table is made for.
_OF_MACHINE = 128
_OF_LIMIT = 3  # of a cgroup's limit, which also holds frames of a thousand VIPs
_OF_SHARED_MEMORY = 2  # of the file system that the arena lies in; containers often have 64 MiB

log = structlog.get_logger()


def automatic_size(memory: Memory, shared_memory: int) -> int:
    """Return the size of a flow table for this memory and a file system of this many bytes: a power of two.

    A budget from 7/8 of a power of two counts as that power: a machine sold with 16 GiB reports 15.5.
    """
    shares = [memory.machine // _OF_MACHINE, shared_memory // _OF_SHARED_MEMORY]
    if memory.limit is not None:
        shares.append(memory.limit // _OF_LIMIT)
    flows = max(min(shares) // BYTES_PER_FLOW * 8 // 7, SMALLEST)
    return int(min(1 << (flows.bit_length() - 1), LARGEST))


def size_on_this_machine(shm_dir: Path) -> int:
    """Return the automatic size for this process with its arena in an existing directory."""
    return automatic_size(memory_of(), _size_of(shm_dir))


def size_in_force(given: int | None, shm_dir: Path) -> int:
    """Return the size that was given, or the automatic one, and log what that follows from."""
    if given is not None:
        return given
    flows = size_on_this_machine(shm_dir)
    memory = memory_of()
    log.info(
        "flow table sized by memory",
        flows=flows,
        machine_bytes=memory.machine,
        limit_bytes=memory.limit,
        shared_memory_bytes=_size_of(shm_dir),
    )
    return flows


def _size_of(directory: Path) -> int:
    """Return how many bytes the file system of a directory has."""
    files = os.statvfs(directory)
    return files.f_blocks * files.f_frsize


def _parsed(value: object) -> int | None:
    """Return the size that an option or a file says; None is the automatic one."""
    if value is None or value == AUTO:
        return None
    try:
        flows = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        flows = 0
    if FLOWS_MIN <= flows <= FLOWS_MAX:
        return flows
    message = f"{value} is no size; give --flow-table-size {AUTO} or a number of flows from {FLOWS_MIN} to {FLOWS_MAX}"
    raise ValueError(message)


FlowTableSize = Annotated[
    Annotated[int, Field(ge=FLOWS_MIN, le=FLOWS_MAX)] | None,
    BeforeValidator(_parsed),
    Field(description="flows the arena has room for; none: by the machine's memory"),
]
"""A start parameter; `auto` and None have the size follow from memory."""
