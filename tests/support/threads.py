"""Threads of another process, stopped or sent into an endless loop by ptrace, as a fault of their own would."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_LIBC.ptrace.restype = ctypes.c_long

_GETREGS, _SETREGS, _DETACH, _SEIZE, _INTERRUPT = 12, 13, 17, 0x4206, 0x4207
_WALL = 0x40000000
_REGISTERS = struct.Struct("27Q")  # struct user_regs_struct of x86-64
_ORIG_RAX, _RIP = 15, 16
_ENDLESS_LOOP = b"\xeb\xfe"  # jmp to itself


def thread_id(pid: int, name: str) -> int:
    """Return the id of the thread of a process that has this name."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return int(task.name)
    raise AssertionError(f"process {pid} has no thread {name}")


def _ptrace(request: int, tid: int, address: int = 0, data: object = None) -> None:
    if _LIBC.ptrace(request, tid, address, data) == -1:
        error = ctypes.get_errno()
        if request == _SEIZE:
            pytest.skip(f"no ptrace here: {os.strerror(error)}")
        raise OSError(error, os.strerror(error))


@contextmanager
def stopped(tid: int) -> Iterator[None]:
    """Keep a thread from running; at the end it goes on, if it is still there."""
    _stop(tid)
    # As its tracer we must be told of its end, or its process would not end.
    reaper = threading.Thread(target=_reap, args=(tid,), daemon=True)
    reaper.start()
    try:
        yield
    finally:
        if Path(f"/proc/{tid}").exists():
            _LIBC.ptrace(_DETACH, tid, 0, None)


def spin(tid: int) -> None:
    """Send a thread into an endless loop."""
    if platform.machine() != "x86_64":
        pytest.skip("knows the registers of x86-64 alone")
    _stop(tid)
    buffer = ctypes.create_string_buffer(_REGISTERS.size)
    _ptrace(_GETREGS, tid, 0, buffer)
    registers = list(_REGISTERS.unpack(buffer.raw))
    registers[_RIP] = _endless_loop(tid)
    registers[_ORIG_RAX] = 2**64 - 1  # no system call is to be repeated
    _ptrace(_SETREGS, tid, 0, ctypes.create_string_buffer(_REGISTERS.pack(*registers)))
    _ptrace(_DETACH, tid)


def _stop(tid: int) -> None:
    _ptrace(_SEIZE, tid)
    _ptrace(_INTERRUPT, tid)
    os.waitpid(tid, _WALL)


def _reap(tid: int) -> None:
    try:
        while True:
            _, status = os.waitpid(tid, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                return
    except ChildProcessError:
        return


def _endless_loop(tid: int) -> int:
    """Find the two bytes of an endless loop in code that the process has mapped."""
    with Path(f"/proc/{tid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{tid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xp .* /", line)
            if found is None:
                continue
            start, end = (int(each, 16) for each in found.groups())
            memory.seek(start)
            if (at := memory.read(end - start).find(_ENDLESS_LOOP)) >= 0:
                return start + at
    raise AssertionError("no code with an endless loop in it")
