"""Traces: arrivals one by one, from a file of comma-separated values that anybody may have written."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from penstock_api.files import UnreadableFileError, text_of

from penstock_rl.scenarios.errors import ScenarioError
from penstock_rl.scenarios.fields import LONGEST

LARGEST_BYTES = 64 * 1024 * 1024
MOST_ROWS = 1_000_000
LONGEST_WORK = 3600.0
COLUMNS = ("arrival", "work", "kind")


def read(path: Path, classes: Sequence[str]) -> NDArray[np.float64]:
    """Return [rows, 3]: second, work and class of each arrival, sorted by time. Raises ScenarioError with the line."""
    try:
        status = path.stat()
        return _read(path, tuple(classes), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}; arrivals.trace.file must name a file") from error


@lru_cache(maxsize=8)
def _read(path: Path, classes: tuple[str, ...], changed: int, size: int) -> NDArray[np.float64]:
    try:
        text = text_of(path, LARGEST_BYTES)
    except UnreadableFileError as error:
        raise ScenarioError(str(error)) from error
    lines = csv.reader(text.splitlines())
    try:
        header = _header(next(lines, []), classes)
        rows = [_row(cells, header, classes) for cells in islice(lines, MOST_ROWS) if cells]
    except (ValueError, csv.Error) as error:
        raise ScenarioError(f"{path}:{max(1, lines.line_num)}: {error}") from error
    if next(lines, None):
        raise ScenarioError(f"{path}: has more than {MOST_ROWS} arrivals; shorten it")
    if not rows:
        raise ScenarioError(f"{path}: has no arrival; add lines below the header")
    found = np.array(rows, dtype=np.float64)
    found = found[np.argsort(found[:, 0], kind="stable")]
    found.flags.writeable = False
    return found


def _header(cells: Sequence[str], classes: Sequence[str]) -> Mapping[str, int]:
    names = [cell.strip() for cell in cells]
    known = {name: names.index(name) for name in COLUMNS if name in names}
    needed = COLUMNS[: 2 if len(classes) == 1 else 3]
    missing = [name for name in needed if name not in known]
    if missing:
        raise ValueError(f"the first line must name the column {missing[0]}; write {','.join(COLUMNS)}")
    return known


def _row(cells: Sequence[str], header: Mapping[str, int], classes: Sequence[str]) -> tuple[float, float, float]:
    if len(cells) <= max(header.values()):
        raise ValueError(f"has {len(cells)} values, the header names more columns; complete the line")
    arrival = _number("arrival", cells[header["arrival"]], 0.0, LONGEST)
    work = _number("work", cells[header["work"]], 1e-6, LONGEST_WORK)
    if "kind" not in header:
        return arrival, work, 0.0
    kind = cells[header["kind"]].strip()
    if kind not in classes:
        raise ValueError(f"kind: must be the name of a class (is {kind[:80]!r}); use one of {', '.join(classes)}")
    return arrival, work, float(classes.index(kind))


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"{name}: must be a number from {low:g} to {high:g} (is {text[:80]!r}); correct it")
    return value
