"""An image of type `vpp` put together for tests from a VPP that is installed here; docker/vpp.Dockerfile makes the real
one from packages.

It is the embedded data plane's image with one more layer: VPP below PENSTOCK_VPP_PREFIX (or /usr), the libraries that
it needs, the plugin built against it, and vpp_papi.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from e2e.images.archive import extend_archive
from e2e.images.errors import ImageError

ROOT = Path(__file__).parents[2]
LIBRARIES = "usr/lib/x86_64-linux-gnu"
SITE_PACKAGES = "opt/penstock/lib/python3.13/site-packages"
# With those of the image itself.
_BASIC = re.compile(r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv)[.]so.*")
_BUILD_SECONDS = 900


def prefix() -> Path:
    """Return where VPP is installed, if it is."""
    return Path(os.environ.get("PENSTOCK_VPP_PREFIX", "/usr"))


def missing() -> str:
    """Say what an image lacks here; nothing if it can be put together."""
    if not (prefix() / "bin/vpp").exists():
        return f"no VPP in {prefix()}: install it, or name its prefix by PENSTOCK_VPP_PREFIX"
    if not any(prefix().glob("include/vlib/vlib.h")):
        return f"no headers of VPP in {prefix()}: install its development package"
    return "" if find_spec("vpp_papi") is not None else "no vpp_papi: install it with pip"


def files() -> dict[str, Path]:
    """Build the plugin and return the layer: paths in the image, files here."""
    if reason := missing():
        raise ImageError(reason)
    build = _build_plugin()
    programs = [prefix() / "bin" / name for name in ("vpp", "vppctl")]
    plugins = sorted(next(prefix().rglob("vpp_plugins/af_packet_plugin.so")).parent.glob("*_plugin.so"))
    found = {f"usr/bin/{path.name}": path for path in programs}
    found |= {f"{LIBRARIES}/vpp_plugins/{path.name}": path for path in plugins}
    plugin = next(build.rglob("lb_rl_plugin.so"))
    found["opt/penstock/lib/vpp_plugins/lb_rl_plugin.so"] = plugin
    found |= {f"opt/penstock/lib/xdp/{path.name}": path for path in build.rglob("*.bpf.o")}
    for path in [*programs, *plugins, plugin]:
        found |= {f"{LIBRARIES}/{library.name}": library for library in _libraries(path)}
    return found | dict(_python_files("vpp_papi"))


def digest(base: Path, layer: dict[str, Path]) -> str:
    """Return a short digest of everything that goes into the image."""
    total = hashlib.sha256(base.name.encode())
    for name, path in sorted(layer.items()):
        total.update(f"\0{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def write(base: Path, target: Path, reference: str, layer: dict[str, Path]) -> None:
    """Write the image's archive on top of the embedded data plane's."""
    modes = {name: 0o755 if os.access(path, os.X_OK) else 0o644 for name, path in layer.items()}
    content = {name: (path.read_bytes(), modes[name]) for name, path in layer.items()}
    unfinished = target.with_suffix(".tmp")
    extend_archive(base, unfinished, reference, content).replace(target)


def _build_plugin() -> Path:
    # A place for each VPP: CMake goes on with the one that it found first.
    build = ROOT / "build" / f"vpp{str(prefix()).replace('/', '-')}"
    # VPP's generator of API code wants the system's Python, with its `ply`.
    environment = os.environ | {"PATH": f"/usr/bin:{os.environ['PATH']}"}
    configure = ["cmake", "-S", "vpp-plugin", "-B", str(build), "-G", "Ninja", "-DPENSTOCK_VPP=ON"]
    for command in ([*configure, f"-DCMAKE_PREFIX_PATH={prefix()}"], ["cmake", "--build", str(build), "-j", "2"]):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS
        )
        if done.returncode != 0:
            raise ImageError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return build


def _libraries(program: Path) -> Iterator[Path]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True, timeout=30).stdout
    for match in re.finditer(r"(\S+) => (/\S+)", listed):
        if not _BASIC.fullmatch(match[1]):
            yield Path(match[2])


def _python_files(package: str) -> Iterator[tuple[str, Path]]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImageError(f"no {package}: install it with pip")
    folder = Path(spec.origin).parent
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and "tests" not in path.parts:
            yield f"{SITE_PACKAGES}/{package}/{path.relative_to(folder)}", path
