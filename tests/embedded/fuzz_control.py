#!/usr/bin/env python3
"""Fuzz target of the control socket: `python fuzz_control.py [libFuzzer's options] [corpora]`, from the root.

An input is what a client writes to the socket: requests, a line each. A line that begins with the byte 0 goes out
behind so many spaces that it is a byte too long, one with the byte 1 is as long as may be. The real server, the real
data plane and a real core behind it answer; only the node's kernel is a stand-in. Whatever is said:

* each line is answered, and only one that is too long ends the connection;
* a refusal names a field of the protocol where there is one, and has changed nothing;
* an apply without a refusal is in force as it was said, is remembered, survives a restart, and is no change when it is
  said again; what is refused of an apply is as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris
import penstock_core  # noqa: F401 -- found by the finder that goes
import structlog

from tests.support import node_in_memory
from tests.support.control_mutator import cross, mutate

node_in_memory.install()
# The finder of an editable install brings loaders of its own, which cannot be instrumented: ours are read as they lie.
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
sys.path.insert(0, str(Path(__file__).parents[2] / "vpp-plugin" / "embedded"))
with atheris.instrument_imports(include=["penstock_embedded"]):
    from penstock_embedded import messages, state
    from penstock_embedded.dataplane import Dataplane
    from penstock_embedded.server import ControlServer
    from penstock_embedded.settings import Settings

MAX_LINES = 8
ANSWER_SECONDS = 20
RESTART_EACH = 8  # so many inputs that leave VIPs end with a restart, which costs as much as all of the rest
CODES = {"malformed", "too-large", "invalid", "unsupported", "conflict", "exhausted"}
MODELS = [each for each in vars(messages).values() if isinstance(each, type) and issubclass(each, messages.Message)]
FIELDS = {name for model in MODELS for name in model.model_fields}

failures: list[dict[str, Any]] = []  # exceptions that nobody handled
# Another server by the same name is another backend: both are there until the earlier one has drained.
Backends = dict[tuple[Any, ...], tuple[Any, ...]]  # state and weight by name, address and port


def single(value: float) -> float:
    """Return the number that the core has of a weight."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def place(backend: messages.Backend | messages.BackendStatus) -> tuple[Any, ...]:
    """Return what makes it this backend."""
    return backend.id, backend.address, backend.port


def takes_flows(state: str, weight: float) -> bool:
    """Tell whether the core has a backend take new flows: without weight it drains, and what drains fails in time."""
    return state == messages.BackendState.ACTIVE and weight > 0


class Subject:
    """A data plane that is served, and a client of its socket."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(
            run_dir=directory / "run", shm_dir=directory / "shm", flow_table_size=1024, max_vips=8, max_slots=128
        )
        self.dataplane = Dataplane(self.settings)
        self.used = False  # something was applied since the last `forget`

    async def start(self) -> None:
        """Serve."""
        self._server = ControlServer(
            self.settings.socket_path, self.dataplane, uids=frozenset({os.geteuid()}), group=None
        )
        await self._server.start()

    async def restart(self) -> None:
        """End as by SIGTERM, and begin again."""
        await self._server.stop()
        await self.dataplane.close()
        self.dataplane = Dataplane(self.settings)
        self.dataplane.resume()
        await self.start()

    async def forget(self) -> None:
        """Be as at the beginning."""
        if self.used:
            await self.dataplane.withdraw()
            assert node_in_memory.desired is None
            left = [each.name for each in self.settings.shm_dir.iterdir()]
            assert left == [], left
            self.used = False

    @property
    def state(self) -> state.State:
        """What the data plane believes to be in force."""
        return self.dataplane._forwarder.state

    def in_force(self) -> dict[str, tuple[str, Backends]]:
        """Return what the core has of the VIPs that are to be in force."""
        wanted = {
            known: {place(each): single(each.weight) for each in vip.backends} for known, vip in self.state.vips.items()
        }
        dumped = self.dataplane._forwarder.vip_statuses()
        return {vip.id: (vip.key, backends_of(vip, wanted[vip.id])) for vip in dumped if vip.id in wanted}


def backends_of(vip: messages.VipStatus, wanted: dict[tuple[Any, ...], float]) -> Backends:
    """Return the backends that are to be there: what leaves may go at any moment, also when it came back meanwhile.

    Of two of one name and place the one that leaves drains. Where both drain, the one that has the wanted weight is it.
    """

    def leaves(row: messages.BackendStatus) -> tuple[bool, bool]:
        return row.state == messages.BackendState.DRAINING, row.weight != wanted[place(row)]

    rows = [row for row in vip.backends if place(row) in wanted]
    staying = {place(row): row for row in sorted(rows, key=leaves, reverse=True)}
    return {at: (takes_flows(row.state, row.weight), row.weight) for at, row in staying.items()}


class Talk:
    """One connection to the subject, and what must hold of every answer."""

    def __init__(self, subject: Subject, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._subject = subject
        self._reader = reader
        self._writer = writer

    async def say(self, line: bytes) -> bool:
        """Send a line and check what comes of it; False when the server has hung up."""
        before = self._subject.state, self._subject.in_force()
        reply = await self._ask(line)
        if reply.error is not None:
            self._check_refusal(reply.error, line)
            assert (self._subject.state, self._subject.in_force()) == before, "a refused request changed something"
            return reply.error.code != "too-large"
        assert reply.result is not None, reply
        request = messages.Request.model_validate(json.loads(line.removeprefix(b"\1")))
        assert reply.id == request.id
        if request.method is messages.Method.APPLY:
            self._subject.used = True
            result = messages.ApplyResult.model_validate(reply.result)
            self._check_apply(messages.DesiredState.model_validate(request.params), result, before[1])
            if not result.errors and not any(each.error for each in result.vips):
                await self._check_again(line, result)
        elif request.method is messages.Method.WITHDRAW:
            assert self._subject.state == state.State()
        return True

    async def _ask(self, line: bytes) -> messages.Reply:
        self._writer.write(padded(line) + b"\n")
        await self._writer.drain()
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await self._reader.readuntil(b"\n")
        reply = messages.Reply.model_validate_json(answer)
        assert (reply.result is None) != (reply.error is None), answer
        return reply

    def _check_refusal(self, error: messages.Error, line: bytes) -> None:
        assert error.code in CODES, error
        assert error.message and error.fix, error
        assert error.field or error.code != "invalid", error
        known = list(itertools.takewhile(lambda part: part.isdigit() or part in FIELDS, error.field.split(".")))
        # What the protocol does not know is what was said.
        if unknown := ".".join(error.field.split(".")[len(known) :]):
            assert json.dumps(unknown.replace('""', "")) in json.dumps(json.loads(line.lstrip(b"\0\1"))), error

    def _check_apply(
        self, desired: messages.DesiredState, result: messages.ApplyResult, before: dict[str, tuple[str, Backends]]
    ) -> None:
        for error in (*result.errors, *(each.error for each in result.vips if each.error)):
            assert error.code in CODES, error
            assert error.message and error.fix, error
            assert error.field or error.code != "invalid", error
        assert [each.id for each in result.vips] == [vip.id for vip in desired.vips]
        expected = {}
        for vip, outcome in zip(desired.vips, result.vips, strict=True):
            if outcome.error is None:
                backends: Backends = {
                    place(each): (takes_flows(each.state, single(each.weight)), single(each.weight))
                    for each in vip.backends
                }
                expected[vip.id] = vip.key, backends
            elif vip.id in before:
                expected[vip.id] = before[vip.id]
        in_force = self._subject.in_force()
        assert in_force == expected, (in_force, expected, result)
        known = self._subject.state
        assert known.generation == desired.generation
        assert state.load(self._subject.settings.state_path) == known
        if not result.errors:
            node = node_in_memory.desired
            assert node is not None and node.vips == known.addresses()
            assert {each.address for each in node.nat_sources} == {each.address for each in desired.nat_sources}

    async def _check_again(self, line: bytes, result: messages.ApplyResult) -> None:
        before = settled(self._subject.state), self._subject.in_force()
        reply = await self._ask(line)
        assert reply.error is None, reply
        again = messages.ApplyResult.model_validate(reply.result)
        assert again == result.model_copy(update={"changed": False}), (result, again)
        now = settled(self._subject.state), self._subject.in_force()
        assert now == before, (before, now)


def settled(value: state.State) -> state.State:
    """Return a state without what drains, and may be gone at any moment."""
    return value.model_copy(update={"removing": {}, "backend_names": {}})


def padded(line: bytes) -> bytes:
    """Return what goes over the socket for a line of an input."""
    if line[:1] not in {b"\0", b"\1"}:
        return line
    size = messages.MAX_MESSAGE_BYTES + (line[:1] == b"\0")
    return line[1:].rjust(size)


def lines_of(data: bytes) -> Iterator[bytes]:
    """Return the lines of an input: not too many, and no more than one of the long ones, which take their time."""
    long = False
    for line in data.split(b"\n")[:MAX_LINES]:
        if not (long and line[:1] in {b"\0", b"\1"}):
            yield line
        long |= line[:1] in {b"\0", b"\1"}


async def play(subject: Subject, data: bytes) -> None:
    """Do what an input says, and forget it."""
    reader, writer = await asyncio.open_unix_connection(
        subject.settings.socket_path, limit=2 * messages.MAX_MESSAGE_BYTES
    )
    talk = Talk(subject, reader, writer)
    for line in lines_of(data):
        if not await talk.say(line):
            assert await reader.read() == b""
            break
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    if subject.state.vips and len(data) % RESTART_EACH == 0:
        before = subject.in_force()
        await subject.restart()
        now = subject.in_force()
        assert now == before, (before, now)
    await subject.forget()
    assert not failures, failures


def fuzz(directory: Path) -> None:
    """Hand the target to libFuzzer, which ends the process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    subject = Subject(directory)
    loop.run_until_complete(subject.start())
    atheris.Setup(
        sys.argv,
        lambda data: loop.run_until_complete(play(subject, data)),
        custom_mutator=mutate,
        custom_crossover=cross,
    )
    atheris.Fuzz()


def main() -> int:
    """Fuzz in a child: nothing unwinds there, and somebody has to tidy up."""
    with tempfile.TemporaryDirectory(prefix="penstock-fuzz-", dir="/dev/shm") as directory:
        child = os.fork()
        if child == 0:
            fuzz(Path(directory))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: os.kill(child, received))
        _, status = os.waitpid(child, 0)
    return abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
