"""Files and directories of objects, as `penstock run` and `penstock validate` read them: each file for itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from penstock_api.documents import LARGEST_BYTES
from penstock_api.errors import InvalidObjectError, KindError
from penstock_api.objects import KubeObject
from penstock_api.reading import KINDS, read_yaml

SUFFIXES = (".json", ".yaml", ".yml")


class FileObject(NamedTuple):
    """An object and where it is written."""

    obj: KubeObject
    file: str
    line: int

    @property
    def where(self) -> str:
        """The place in the form that editors understand."""
        return f"{self.file}:{self.line}"

    @property
    def identity(self) -> tuple[str, str]:
        """Kind and name: what two objects cannot have both."""
        return self.obj.info.kind, self.obj.key


class Problem(NamedTuple):
    """What is wrong with a file or an object in it; `text` names the place and the fix."""

    file: str
    text: str
    identity: tuple[str, str] | None = None  # of the object, where it can be told


class Reading(NamedTuple):
    """What files have: objects that can be used, and what is wrong with the others."""

    objects: tuple[FileObject, ...]
    problems: tuple[Problem, ...]


def read_files(path: Path) -> Reading:
    """Read a directory of YAML files, or one file. Raises OSError where `path` itself cannot be read."""
    return join(read_file(file) for file in _files_of(path))


def join(readings: Iterable[Reading]) -> Reading:
    """Put readings together; an object that several have is the first one's."""
    found: dict[tuple[str, str], FileObject] = {}
    problems: list[Problem] = []
    for reading in readings:
        problems += reading.problems
        for each in reading.objects:
            first = found.setdefault(each.identity, each)
            if first is not each:
                kind, key = each.identity
                text = f"{each.where}: {kind} {key} is in {first.where}, too; remove one of them"
                problems.append(Problem(each.file, text))
    return Reading(tuple(found.values()), tuple(problems))


def read_file(file: Path) -> Reading:
    """Read one file."""
    try:
        return read_text(text_of(file), str(file))
    except UnreadableFileError as error:
        return Reading((), (Problem(str(file), str(error)),))


def read_text(text: str, file: str) -> Reading:
    """Read YAML that is from a file of this name."""
    read = read_yaml(text, foreign="skip")
    problems = []
    for error in read.errors:
        problems.append(Problem(file, error.located(file), _identity(error)))
    return Reading(tuple(FileObject(each.obj, file, each.line) for each in read.objects), tuple(problems))


def _identity(error: KindError) -> tuple[str, str] | None:
    if not isinstance(error, InvalidObjectError):
        return None
    in_default = KINDS[error.kind].info.namespaced and "/" not in error.name
    return error.kind, f"default/{error.name}" if in_default else error.name


def _files_of(path: Path) -> list[Path]:
    if not stat.S_ISDIR(path.stat().st_mode):
        return [path]
    # Editors keep their own files, whose names begin with a dot, beside those that they change.
    return sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and not each.name.startswith("."))


class UnreadableFileError(ValueError):
    """A file that is not text of a size that is read; the message names the file and the fix."""


def text_of(file: Path, largest: int = LARGEST_BYTES) -> str:
    """Return the text of a file that anybody may have written; raises UnreadableFileError."""
    try:
        return _bytes_of(file, largest).decode("utf-8-sig")
    except OSError as error:
        raise UnreadableFileError(f"{file}: {error.strerror}; check the file and its permissions") from error
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{file}: is not UTF-8 (byte {error.start}); save it as text") from error


def _bytes_of(file: Path, largest: int) -> bytes:
    # O_NONBLOCK: a FIFO of this name would block for ever.
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            raise UnreadableFileError(f"{file}: is not a regular file; remove or rename it")
        content = opened.read(largest + 1) or b""
        if len(content) > largest:
            raise UnreadableFileError(f"{file}: has more than {largest} bytes; split it")
        return content
