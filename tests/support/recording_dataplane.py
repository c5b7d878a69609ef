"""A data plane for tests: speaks the control protocol on a real Unix socket, keeps state, records what it was asked.

It behaves as the embedded one does where the agent can see it: slots are given in order and kept by backend id,
backends that leave drain until `finish_drain`, a new process has a new instance id and no generation.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from pathlib import Path

from penstock_embedded.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_REVISION,
    ApplyResult,
    Backend,
    BackendState,
    BackendStatus,
    DesiredState,
    Dump,
    Error,
    Hello,
    Method,
    Reply,
    Request,
    Stats,
    Vip,
    VipResult,
    VipStatus,
)
from pydantic import ValidationError

from tests.support import request_schemas
from tests.support.waiting import StreamServer


class RecordingDataPlane(StreamServer):
    """Async context manager that serves at `path`."""

    def __init__(self, path: Path, *, slots: int = 16) -> None:
        super().__init__()
        self.path = path
        self.slots = slots
        self.requests: list[Request] = []
        self.refuse: dict[str, Error] = {}  # by VIP id
        self.refuse_all: Error | None = None
        self.silent = False
        self.garbage: bytes | None = None  # sent instead of the next reply
        self.no_answer_to: Method | None = None  # does it, and hangs up
        self.lost_announcements: tuple[str, ...] = ()
        self.policy = ""
        self.dropped: dict[str, int] = {}  # packets, by reason
        self.boot_id = "boot-1"
        self.revision = PROTOCOL_REVISION  # of the requests that it understands
        self._forget()

    def _forget(self) -> None:
        self.instance_id = uuid.uuid4().hex
        self.generation: int | None = None
        self.state: DesiredState | None = None
        self._vips: dict[str, tuple[Vip, dict[str, tuple[int, Backend]]]] = {}

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self.accept, self.path, limit=MAX_MESSAGE_BYTES + 1)

    async def restart(self) -> None:
        """Be killed and started again: another instance that knows nothing."""
        await self.stop()
        self.path.unlink(missing_ok=True)
        self._forget()
        await self.start()

    def asked(self, method: Method) -> list[Request]:
        return [request for request in self.requests if request.method is method]

    @property
    def applied(self) -> list[DesiredState]:
        return [DesiredState.model_validate(request.params) for request in self.asked(Method.APPLY)]

    def finish_drain(self) -> None:
        """Let backends go that are no longer desired, which frees their slots."""
        for vip, slots in self._vips.values():
            wanted = {backend.id for backend in vip.backends}
            for gone in slots.keys() - wanted:
                del slots[gone]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line = await reader.readuntil(b"\n")
            if self.silent:
                continue
            answer, self.garbage = self.garbage or self._answer(line), None
            if self.requests and self.requests[-1].method is self.no_answer_to:
                return
            writer.write(answer)
            await writer.drain()

    def _answer(self, line: bytes) -> bytes:
        try:
            request = Request.model_validate_json(line)
        except ValidationError as invalid:
            reply = Reply(id=0, error=Error(code="malformed", message=str(invalid)))
            return reply.model_dump_json().encode() + b"\n"
        self.requests.append(request)
        handlers = {
            Method.HELLO: self._hello,
            Method.APPLY: lambda: self._apply(DesiredState.model_validate(request.params)),
            Method.DUMP: self._dump,
            Method.STATS: self._stats,
            Method.WITHDRAW: self._withdraw,
        }
        if request.method is Method.APPLY and (error := self.refuse_all or self._not_understood(request)):
            reply = Reply(id=request.id, error=error)
        else:
            result = handlers[request.method]()
            reply = Reply(id=request.id, result=result.model_dump(mode="json") if result else {})
        return reply.model_dump_json().encode() + b"\n"

    def _not_understood(self, request: Request) -> Error | None:
        """Refuse fields and values that came after its revision, as a data plane of that time does."""
        unknown = list(request_schemas.unknown(request.params, request_schemas.of(self.revision)))
        return Error(code="invalid", field=unknown[0], message=f"{unknown} not known") if unknown else None

    def _hello(self) -> Hello:
        return Hello(
            protocol_version=1,
            protocol_revision=self.revision,
            version="test",
            type="embedded",
            instance_id=self.instance_id,
            boot_id=self.boot_id,
            reattached_flows=0,
            generation=self.generation,
        )

    def _apply(self, desired: DesiredState) -> ApplyResult:
        self.state, self.generation = desired, desired.generation
        self.lost_announcements = ()
        taken = [vip for vip in desired.vips if vip.id not in self.refuse]
        self._vips = {vip.id: (vip, self._place(vip)) for vip in taken}
        return ApplyResult(
            generation=desired.generation,
            changed=True,
            vips=tuple(VipResult(id=vip.id, error=self.refuse.get(vip.id)) for vip in desired.vips),
        )

    def _place(self, vip: Vip) -> dict[str, tuple[int, Backend]]:
        placed = dict(self._vips[vip.id][1]) if vip.id in self._vips else {}
        wanted = {backend.id for backend in vip.backends}
        for gone in placed.keys() - wanted:
            slot, backend = placed[gone]
            placed[gone] = slot, backend.model_copy(update={"state": BackendState.DRAINING})
        taken = {slot for slot, _ in placed.values()}
        free = (slot for slot in itertools.count() if slot not in taken)
        for backend in vip.backends:
            slot = placed[backend.id][0] if backend.id in placed else next(free)
            placed[backend.id] = slot, backend
        return placed

    def _dump(self) -> Dump:
        return Dump(
            instance_id=self.instance_id,
            generation=self.generation,
            vips=tuple(self._status(vip, placed) for vip, placed in self._vips.values()),
        )

    def _status(self, vip: Vip, placed: dict[str, tuple[int, Backend]]) -> VipStatus:
        return VipStatus(
            id=vip.id,
            key=vip.key,
            frames=f"/penstock.{vip.id}.frames",
            actions=f"/penstock.{vip.id}.actions",
            slots=self.slots,
            backends=tuple(
                BackendStatus(
                    id=backend.id,
                    slot=slot,
                    address=backend.address,
                    port=backend.port,
                    state=backend.state,
                    weight=backend.weight,
                    open_flows=0,
                    flows=0,
                    packets=0,
                    bytes=0,
                )
                for slot, backend in sorted(placed.values(), key=lambda item: item[0])
            ),
        )

    def _stats(self) -> Stats:
        return Stats(
            instance_id=self.instance_id,
            uptime_seconds=1.0,
            packets=0,
            forwarded=0,
            dropped=dict(self.dropped),
            flows=0,
            flow_capacity=65536,
            half_open=0,
            lost_announcements=self.lost_announcements,
            policy=self.policy,
        )

    def _withdraw(self) -> None:
        self.state, self._vips = None, {}
