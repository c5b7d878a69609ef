"""Everything works as in the data plane's pod: uid 0, two capabilities, /proc/sys read-only."""

from __future__ import annotations

import subprocess
import sys

import pytest
from penstock_node import withdraw

from tests.node.conftest import Lab

pytestmark = pytest.mark.netns

PROGRAM = """
import asyncio, os
from ipaddress import ip_address
from penstock_node import *

status = dict(line.split(":\\t") for line in open("/proc/self/status") if line.startswith(("Cap", "Uid")))
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 12 | 1 << 13, status
try:
    open("/proc/sys/net/ipv4/ip_forward", "w")
except OSError as error:
    assert error.errno == 30, error
else:
    raise SystemExit("/proc/sys can be written")

vips = frozenset(map(ip_address, {vips!r}))
sources = frozenset(NatSource(ip_address(address), 16384, 28671) for address in {sources!r})
desired = DesiredNode(vips=vips, nat_sources=sources, interfaces=("client0", "server0"))
assert not [f for f in preflight(desired, Surroundings(announce=True)) if f.severity is Severity.ERROR]
assert reconcile(desired)
assert reconcile(desired) == ()
for queue in open_tun(desired.tun):
    os.close(queue)

async def announce():
    async with Announcer(announce_at=(0,)) as announcer:
        announcer.update(["client0"], vips)
        await asyncio.sleep(0.05)

asyncio.run(announce())
assert withdraw()
assert withdraw() == ()
"""


def run_confined(lab: Lab, program: str, capabilities: str = "+net_admin,+net_raw") -> subprocess.CompletedProcess[str]:
    """Run a program as the container runtime would, /dev/net/tun being root's alone."""
    script = """
        mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro /proc/sys
        exec "$@"
    """
    confined = ["setpriv", "--bounding-set", f"-all,{capabilities}", "--inh-caps", "-all", "--no-new-privs"]
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", *confined, sys.executable, "-c", program]
    return lab.node.run(subprocess.run, command, capture_output=True, text=True, timeout=30)


def test_two_capabilities_suffice(lab: Lab) -> None:
    before = lab.snapshot()
    vips, sources = [str(lab.vip4)], [str(lab.node4)]
    done = run_confined(lab, PROGRAM.format(vips=vips, sources=sources))
    assert done.returncode == 0, done.stderr
    assert lab.snapshot() == before


def test_ipv6_needs_a_node_that_forwards(lab: Lab) -> None:
    vips, sources = [str(lab.vip4), str(lab.vip6)], [str(lab.node4), str(lab.node6)]
    program = PROGRAM.replace("assert not [f for", "[f for").format(vips=vips, sources=sources)
    done = run_confined(lab, program)
    assert "Read-only file system; run on the node: sysctl -w net.ipv6.conf.all.forwarding=1" in done.stderr
    lab.node.run(withdraw)
    lab.node.sh("sysctl -w net.ipv6.conf.all.forwarding=1")
    done = run_confined(lab, program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("capabilities", "message"),
    [
        ("+net_raw", "not permitted; run as uid 0 with CAP_NET_ADMIN"),
        ("+net_admin", "interface client0: raw sockets need CAP_NET_RAW"),
    ],
)
def test_what_is_missing_is_named(lab: Lab, capabilities: str, message: str) -> None:
    program = """
import asyncio
from penstock_node import *
reconcile(DesiredNode(interfaces=("client0",)))
async def announce():
    async with Announcer() as announcer:
        announcer.update(["client0"], [])
asyncio.run(announce())
"""
    done = run_confined(lab, program, capabilities)
    assert done.returncode != 0
    assert message in done.stderr
