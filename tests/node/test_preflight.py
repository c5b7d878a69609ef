"""Every finding's commands do away with the finding, on the node where it was found."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from penstock_node import DesiredNode, Finding, NatSource, Severity, Surroundings, preflight, reconcile

from tests.node.conftest import Lab

pytestmark = pytest.mark.netns


@pytest.fixture
def fit(lab: Lab) -> Lab:
    """A node without findings."""
    lab.node.sh("sysctl -w net.ipv4.ip_forward=1\nsysctl -w net.ipv6.conf.all.forwarding=1")
    assert lab.node.run(preflight, lab.desired()) == ()
    return lab


def check(lab: Lab, desired: DesiredNode | None = None, surroundings: Surroundings | None = None) -> list[Finding]:
    return list(lab.node.run(preflight, desired or lab.desired(), surroundings))


SHORTCOMINGS = {
    "ipv4-forwarding": "sysctl -w net.ipv4.ip_forward=0",
    "ipv6-forwarding": "sysctl -w net.ipv6.conf.all.forwarding=0",
    "rp-filter": "sysctl -w net.ipv4.conf.all.rp_filter=1",
    "ephemeral-ports": "sysctl -w net.ipv4.ip_local_port_range='1024 65000' net.ipv4.ip_local_reserved_ports=8080",
    "forward-policy: iptables": "iptables -P FORWARD DROP; iptables -A FORWARD -i docker0 -j ACCEPT",
    "forward-policy: ip6tables": "ip6tables -P FORWARD DROP",
    "forward-policy: last rule": (
        "iptables -A FORWARD -m state --state ESTABLISHED -j ACCEPT; iptables -A FORWARD -j REJECT"
    ),
    "forward-policy: old iptables": "iptables-legacy -P FORWARD DROP",
    "forward-policy: nft": """nft -f - <<'END'
        table inet firewall {
          chain forward {
            type filter hook forward priority 0; policy drop
            ct state established,related accept
            ip saddr 198.51.100.0/24 accept
            jump more
          }
          chain more { }
        }
END""",
    "forward-policy: one way": """nft -f - <<'END'
        table inet firewall {
          chain forward {
            type filter hook forward priority 0
            iifname "penstock" accept
            oifname "pen*" drop
          }
        }
END""",
    "masquerade: iptables": "iptables -t nat -A POSTROUTING -s 10.2.0.0/16 ! -o docker0 -j MASQUERADE",
    "masquerade: nft": """nft -f - <<'END'
        table inet nat {
          chain postrouting { type nat hook postrouting priority 100; ip saddr != 10.0.0.0/8 masquerade
          }
        }
END""",
}


@pytest.mark.parametrize("name", SHORTCOMINGS)
def test_remedies_help(fit: Lab, name: str) -> None:
    fit.node.shell(SHORTCOMINGS[name])
    findings = check(fit)
    assert {finding.check for finding in findings} == {name.partition(":")[0]}
    for finding in findings:
        assert finding.message
        for command in finding.remedy:
            fit.node.shell(command)
    assert check(fit) == []


HARMLESS = {
    "ports kept free": (
        "sysctl -w net.ipv4.ip_local_port_range='1024 65000' net.ipv4.ip_local_reserved_ports=16384-28671"
    ),
    "docker's masquerade": "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "kube-proxy's masquerade": (
        "iptables -t nat -N KUBE-POSTROUTING; "
        "iptables -t nat -A POSTROUTING -m comment --comment k -j KUBE-POSTROUTING; "
        "iptables -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN; "
        "iptables -t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    ),
    "kube-proxy's invalid drop": "iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "drop of others": "iptables -A FORWARD -s 192.0.2.0/24 -j DROP; iptables -A FORWARD -i docker0 -j DROP",
    "dropping input": "iptables -P INPUT DROP",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_not_found(fit: Lab, name: str) -> None:
    fit.node.shell(HARMLESS[name])
    assert check(fit) == []


def test_masquerade_is_no_matter_once_our_table_is_there(fit: Lab) -> None:
    fit.node.sh("iptables -t nat -A POSTROUTING -j MASQUERADE")
    assert {finding.check for finding in check(fit)} == {"masquerade"}
    fit.node.run(reconcile, fit.desired())
    assert check(fit) == []


def test_node_ports_are_kept_clear(fit: Lab) -> None:
    desired = fit.desired(nat_sources=frozenset({NatSource(fit.node4, 28672, 32767)}))
    fit.node.sh("sysctl -w net.ipv4.ip_local_port_range='40000 60000'")
    (finding,) = check(fit, desired)
    assert (finding.check, finding.severity) == ("node-ports", Severity.ERROR)
    spec = json.loads(finding.remedy[0].split("'")[1])["spec"]["natSource"]
    assert spec["portFirst"] % 64 == 0
    assert (spec["portLast"] + 1) % 64 == 0
    better = NatSource(fit.node4, spec["portFirst"], spec["portLast"])
    assert check(fit, fit.desired(nat_sources=frozenset({better}))) == []


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_programs_on_nat_ports_are_named(fit: Lab, family: socket.AddressFamily, kind: socket.SocketKind) -> None:
    def occupy() -> socket.socket:
        made = socket.socket(family, kind)
        made.bind((str(fit.node4 if family == socket.AF_INET else fit.node6), 20001))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    with fit.node.run(occupy):
        (finding,) = check(fit)
        assert (finding.check, finding.severity) == ("listeners", Severity.ERROR)
        assert "(20001)" in finding.message
        assert ":20001" in fit.node.shell(finding.remedy[0])
    assert check(fit) == []


def test_interfaces_must_exist(fit: Lab) -> None:
    (finding,) = check(fit, fit.desired(interfaces=("eth7",)))
    assert "eth7" in finding.message
    (finding,) = check(fit, fit.desired(interfaces=()))
    assert "default route" in finding.message


def test_errors_come_first(lab: Lab) -> None:
    lab.node.sh("iptables -P FORWARD DROP")
    severities = [finding.severity for finding in check(lab)]
    assert severities == sorted(severities, key=lambda severity: severity is not Severity.ERROR)
    assert set(severities) == {Severity.ERROR, Severity.WARNING}


INSIDE = """
import subprocess, sys
from pathlib import Path
from penstock_node import DesiredNode, Surroundings, preflight
surroundings = Surroundings(shared_memory=Path(sys.argv[1]), shared_memory_bytes=int(sys.argv[2]), announce=True)
def relevant():
    return [f for f in preflight(DesiredNode(), surroundings) if f.check not in ("interfaces",)]
found = relevant()
print([f.check for f in found])
for finding in found:
    for command in finding.remedy:
        subprocess.run(command, shell=True, check=True)
print([f.check for f in relevant()])
"""


def run_in_own_mounts(lab: Lab, prepare: str, *arguments: str) -> list[str]:
    """Run INSIDE with mounts of its own and return the lines it printed."""
    command = [sys.executable, "-c", INSIDE, *arguments]
    script = f'{prepare}\nexec "$@"'
    done = lab.node.run(
        subprocess.run,
        ["unshare", "--mount", "sh", "-ec", script, "sh", *command],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_missing_tun_device_is_made(lab: Lab) -> None:
    before, after = run_in_own_mounts(lab, "mount -t tmpfs none /dev/net", "/tmp", "0")
    assert (before, after) == ("['tun-device']", "[]")


def test_small_shared_memory_is_enlarged(lab: Lab, tmp_path: Path) -> None:
    prepare = f"mount -t tmpfs -o size=4m none {tmp_path}"
    before, after = run_in_own_mounts(lab, prepare, str(tmp_path), str(16 << 20))
    assert (before, after) == ("['shared-memory']", "[]")


def test_a_missing_shared_memory_directory_is_made(lab: Lab, tmp_path: Path) -> None:
    before, after = run_in_own_mounts(lab, "", str(tmp_path / "none"), "0")
    assert (before, after) == ("['shared-memory']", "[]")


def test_missing_capabilities_and_programs_are_found(lab: Lab) -> None:
    program = """
from penstock_node import *
findings = preflight(DesiredNode(), Surroundings(announce=True))
print(sorted({finding.message.split(';')[0] for finding in findings}))
"""
    bare = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "env", "PATH=/nowhere"]
    command = [*bare, sys.executable, "-c", program]
    done = lab.node.run(subprocess.run, command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(
        ["the program nft is not installed", "this process lacks CAP_NET_ADMIN", "this process lacks CAP_NET_RAW"]
    )
