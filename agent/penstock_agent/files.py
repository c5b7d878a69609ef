"""What the agent keeps on disk. No disk stops it: full, read-only, slow and damaged ones become findings.

Files are sealed: a digest tells whether the content is what an agent wrote. One that is not is set aside and named.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog
from penstock_embedded import files
from pydantic import BaseModel

from penstock_agent.findings import NodeFindings

log = structlog.get_logger(__name__)

FORMAT = 1
SAVE_SECONDS = 1.0  # between two writes
RETRY_SECONDS = 5.0  # after a write that failed
WAIT_SECONDS = 2.0  # for a slow disk, before traffic goes on without it
_SEALED = re.compile(rb'\{"format":(\d{1,9}),"sha256":"([0-9a-f]{64})","content":(.*)\}\n?', re.DOTALL)

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


class StateStore:
    """Small states in files of one directory, by name. Not for several threads."""

    def __init__(self, directory: Path, findings: NodeFindings) -> None:
        self._directory = directory
        self._findings = findings
        self._pending: dict[str, BaseModel | str | None] = {}  # None: to be removed
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        # One thread of its own: a disk that hangs takes no other work along.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._found: set[str] = set()

    def load(self, name: str, model: type[Model]) -> Model | None:
        """Read a state at the start; None where there is none that can be used."""
        return self._read(name, lambda content: model.model_validate_json(unseal(content)))

    def load_line(self, name: str, pattern: re.Pattern[str]) -> str | None:
        """Read a line of text that people may have written; None where there is none that matches."""

        def check(content: bytes) -> str:
            line = content.decode().strip()
            if not pattern.fullmatch(line):
                raise files.UnusableFileError(f"it does not match {pattern.pattern}")
            return line

        return self._read(name, check)

    def _read(self, name: str, understand: Callable[[bytes], T]) -> T | None:
        path = self._directory / name
        files.sweep(path)
        try:
            content = files.read(path)
            if content is None:
                return None
            self._found.add(name)
            return understand(content)
        except (OSError, files.UnusableFileError, ValueError, RecursionError) as error:
            self._found.add(name)
            aside = files.set_aside(path)
            log.warning(
                "state file is not used",
                path=str(path),
                error=str(error).partition("\n")[0],
                set_aside=str(aside) if aside else "not possible",
            )
            return None

    def found(self, name: str) -> bool:
        """Tell whether a file of this name was there at the start, or was saved since, and was not removed."""
        return name in self._found

    def put(self, name: str, state: BaseModel | str) -> None:
        """Have a state written soon, a text as it is; only the latest counts."""
        self._found.add(name)
        self._pending[name] = state
        self._wake.set()

    async def save(self, name: str, state: BaseModel) -> None:
        """Write a state now; returns when it is on disk, or when that failed or takes long. Never raises."""
        self.put(name, state)
        await self._flush_in_time()

    async def remove(self, name: str) -> None:
        """Remove a state's file; as `save` does."""
        self._found.discard(name)
        self._pending[name] = None
        self._wake.set()
        await self._flush_in_time()

    async def run(self) -> None:
        """Write what is put, and try again what could not be written, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self.flush()
                await asyncio.sleep(RETRY_SECONDS if self._pending else SAVE_SECONDS)
                if self._pending:
                    self._wake.set()
        finally:
            await self._flush_in_time()

    async def _flush_in_time(self) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.flush()
        except TimeoutError:
            text = f"{self._directory}: writing takes more than {WAIT_SECONDS:g} s; check the disk"
            self._findings.report("state", text)

    async def flush(self) -> None:
        """Write now what waits to be written; what cannot be waits on."""
        async with self._writing:
            problem = ""
            for name, state in list(self._pending.items()):
                path = self._directory / name
                try:
                    await asyncio.get_running_loop().run_in_executor(self._thread, _write, path, state)
                except OSError as error:
                    problem = f"{path}: {error.strerror or error}; the last good state is not kept: check the disk"
                else:
                    if self._pending.get(name) is state:
                        del self._pending[name]
            self._findings.report("state", problem)


def seal(content: bytes) -> bytes:
    """Put JSON under a digest."""
    digest = hashlib.sha256(content).hexdigest()
    return b'{"format":%d,"sha256":"%s","content":%s}\n' % (FORMAT, digest.encode(), content)


def unseal(sealed: bytes) -> bytes:
    """Return the content of `seal`; raises UnusableFileError for anything else."""
    match = _SEALED.fullmatch(sealed)
    if match is None:
        raise files.UnusableFileError("it is not a state file of this release")
    if int(match[1]) != FORMAT:
        raise files.UnusableFileError(f"it has format {int(match[1])}, this release reads format {FORMAT}")
    if hashlib.sha256(match[3]).hexdigest().encode() != match[2]:
        raise files.UnusableFileError("its content does not match its digest")
    return match[3]


def _write(path: Path, state: BaseModel | str | None) -> None:
    if state is None and path.is_dir():
        files.set_aside(path)
    elif state is None:
        path.unlink(missing_ok=True)
    elif isinstance(state, str):
        files.replace(path, state.encode())
    else:
        files.replace(path, seal(state.model_dump_json().encode()))
