"""The data plane under a sanitizer: its extension built with one, which `PENSTOCK_SANITIZER=address|thread` chooses.

`tools/test.sh` builds them. The process that runs the data plane loads it in place of the installed one, and the
sanitizer's runtime before everything else, because Python itself was built without.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}
_OPTIONS = {
    # The interpreter keeps most of its memory until it ends, and forks the data plane without executing it.
    "address": {"ASAN_OPTIONS": "detect_leaks=0:log_path={log}", "UBSAN_OPTIONS": "print_stacktrace=1:log_path={log}"},
    "thread": {"TSAN_OPTIONS": "die_after_fork=0:log_path={log}"},
}

# Run by the process before it imports anything else.
LOAD = """
import importlib.util, os, sys
os.environ.pop("LD_PRELOAD", None)  # not for programs that it starts
if path := os.environ.get("PENSTOCK_CORE"):
    spec = importlib.util.spec_from_file_location("penstock_core", path)
    sys.modules["penstock_core"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
"""


@dataclass(frozen=True)
class Sanitizer:
    """One of the two, and where its findings go."""

    name: str
    reports: Path

    def command(self) -> list[str]:
        """Return what starts a program under it."""
        built = list((_ROOT / f"build/extension-{self.name}").rglob("penstock_core*.so"))
        if len(built) != 1:
            raise RuntimeError(f"no extension with the sanitizer {self.name}: run tools/test.sh, which builds it")
        # Python is no C++ program, but the runtime must find what throws exceptions when it starts.
        preloaded = ":".join(_runtime(library) for library in (_RUNTIMES[self.name], "libstdc++.so.6"))
        options = {"LD_PRELOAD": preloaded, "PENSTOCK_CORE": str(built[0])}
        for name, value in _OPTIONS[self.name].items():
            options[name] = value.format(log=self.reports / self.name)
        return ["env", *(f"{name}={value}" for name, value in options.items())]

    def require_silence(self) -> None:
        """Fail with what it has reported by now."""
        reports = sorted(self.reports.glob(f"{self.name}.*"))
        assert not reports, "\n".join(report.read_text(errors="replace") for report in reports)


def chosen(reports: Path) -> Sanitizer | None:
    """Return the one that the environment asks for; its reports go to this directory."""
    name = os.environ.get("PENSTOCK_SANITIZER")
    return Sanitizer(name, reports) if name else None


def _runtime(library: str) -> str:
    done = subprocess.run(["gcc", f"-print-file-name={library}"], check=True, capture_output=True, text=True)
    return done.stdout.strip()
