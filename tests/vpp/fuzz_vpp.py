"""Runs a fuzz target in a VPP of its own: `fuzz_vpp.py VPP_PREFIX PLUGINS RUNTIME PROGRAM TARGET [options]`.

PLUGINS is the directory of the plugin that was built with the targets in it, RUNTIME the sanitizers' shared library,
PROGRAM what libFuzzer shall start where it wants another process like this; the options are libFuzzer's. VPP gets no
interface, and sockets and shared memory in a directory that goes with it.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

STARTUP = """
unix {{ nodaemon runtime-dir {directory} log {directory}/vpp.log }}
memory {{ main-heap-size 256M main-heap-page-size 4k }}
buffers {{ page-size 4k buffers-per-numa 1024 }}
physmem {{ base-addr 0x200000000000 }}
api-segment {{ prefix {prefix} }}
socksvr {{ socket-name {directory}/api.sock }}
statseg {{ socket-name {directory}/stats.sock size 16M page-size 4k }}
logging {{ default-log-level disabled default-syslog-log-level disabled }}
plugins {{ path {plugins} plugin default {{ disable }} plugin lb_rl_plugin.so {{ enable }} }}
"""

# VPP's stacks and heap are not ASan's: it checks our objects' locals, globals and what they take from malloc.
ASAN = "protect_shadow_gap=0:detect_stack_use_after_return=0:detect_leaks=0:handle_segv=0:allocator_may_return_null=1"


def main(prefix: str, plugins: str, runtime: str, program: str, target: str, *options: str) -> int:
    """Run VPP until libFuzzer has finished, and return its exit code."""
    directory = Path(tempfile.mkdtemp(prefix="pn-fuzz-", dir="/dev/shm"))
    startup = directory / "startup.conf"
    startup.write_text(STARTUP.format(directory=directory, prefix=directory.name, plugins=plugins))
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": ASAN,
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # A file that grows too large is an error like others: no finding.
        "PENSTOCK_FUZZ": "\n".join([target, str(directory), str(Path.cwd()), program, "-handle_xfsz=0", *options]),
    }
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # a target that starts another has lowered it
    try:
        vpp = subprocess.Popen([str(Path(prefix) / "bin" / "vpp"), "-c", str(startup)], env=environment)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: vpp.send_signal(received))
        return vpp.wait()
    finally:
        shutil.rmtree(directory)
        for left in Path("/dev/shm").glob(f"*{directory.name}*"):
            left.unlink()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
