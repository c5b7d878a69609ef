"""What the command line changes and shows."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import penstock_core
import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4
from tests.support.lab import Lab, eventually
from tests.support.vpp import RunningVpp, running_vpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

AS = f"lb rl as {VIP_IPV4} port 80 server"
SHOWN = tuple(f"show lb rl {what}" for what in ("vips", "vips verbose", "node", "agent", "flows", "stats", "memory"))
SLOT = re.compile(r"slot (\d+): ([0-9.]+):")


def test_weights_of_the_command_line_steer_new_flows(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4, options="scheduler maglev")
    first, second = (server.ipv4 for server in lab.servers)
    balancer.quiet(f"{AS} {first} port 8080 weight 0")
    assert {get(lab, VIP_IPV4) for _ in range(8)} == {b"s2"}
    balancer.quiet(f"{AS} {first} port 8080 weight 1")
    balancer.quiet(f"{AS} {second} port 8080 weight 0")
    assert {get(lab, VIP_IPV4) for _ in range(8)} == {b"s1"}


def test_a_backend_drains_and_keeps_its_connections(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        server = next(each for each in lab.servers if each.name.encode() == name)
        balancer.quiet(f"{AS} {server.ipv4} port 8080 draining")
        assert name not in {get(lab, VIP_IPV4) for _ in range(8)}
        assert kept.get() == name
        assert "draining" in balancer.ctl("show lb rl vips")
        balancer.quiet(f"{AS} {server.ipv4} port 8080 del")
        assert kept.get() == name
        assert "(removed)" in balancer.ctl("show lb rl vips")
    eventually(lambda: server.ipv4 not in balancer.ctl("show lb rl vips"))


def test_a_failed_backend_resets_its_connections(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as kept:
        server = next(each for each in lab.servers if each.name.encode() == kept.get())
        balancer.quiet(f"{AS} {server.ipv4} port 8080 failed")
        with pytest.raises(ConnectionResetError):
            kept.get()


def test_a_removed_vip_drains_and_leaves_the_fib(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    route = f"show ip fib {VIP_IPV4}/32"
    assert "lb-rl: VIP" in balancer.ctl(route)
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        balancer.quiet(f"lb rl vip {VIP_IPV4} port 80 del")
        kept.get()
        assert "being removed" in balancer.ctl("show lb rl vips")
    eventually(lambda: balancer.ctl("show lb rl vips").strip() == "")
    eventually(lambda: "lb-rl: VIP" not in balancer.ctl(route))


def test_what_is_shown(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        vips = balancer.ctl("show lb rl vips")
        assert f"{VIP_IPV4}:80/tcp" in vips and "scheduler lsq" in vips
        assert all(f"{server.ipv4}:8080 active" in vips for server in lab.servers)
        assert re.search(r"1 open flows", vips)
        flows = balancer.ctl("show lb rl flows")
        assert re.search(
            rf"tcp {lab.client_ipv4}:\d+ -> {VIP_IPV4}:80 as {lab.balancer_ipv4}:\d+ -> .*established", flows
        )
        assert "no weights of an agent" in balancer.ctl("show lb rl agent")
        assert str(balancer.shm) in balancer.ctl("show lb rl memory")
    assert re.search(r"forwarded +[1-9]", balancer.ctl("show lb rl stats"))

    def cleared() -> bool:  # the last packets of a connection may come after its end here
        balancer.quiet("clear lb rl stats")
        return re.search(r"forwarded +0\b", balancer.ctl("show lb rl stats")) is not None

    eventually(cleared)


def test_schedulers_count_open_or_active_flows(balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4, options="scheduler sed load active features full")
    assert "scheduler sed, load active" in balancer.ctl("show lb rl vips")
    balancer.quiet(f"lb rl vip {VIP_IPV4} port 80 scheduler lsq")  # what is not said stays
    assert "scheduler lsq, load active" in balancer.ctl("show lb rl vips")
    balancer.quiet(f"lb rl vip {VIP_IPV4} port 80 load open")
    assert "scheduler lsq, load open" in balancer.ctl("show lb rl vips")
    assert "load open|active" in balancer.ctl(f"lb rl vip {VIP_IPV4} port 80 load idle")


def test_agents_are_told_a_policy_until_they_are_not(balancer: RunningVpp) -> None:
    said = "agents are to use the policy inverse-duration"
    balancer.quiet("lb rl agent inverse-duration")
    assert said in balancer.ctl("show lb rl agent")
    assert "policy: `Sed!` is no name of one" in balancer.ctl("lb rl agent Sed!")
    assert f"policy: `{'x' * 64}` is no name" in balancer.ctl(f"lb rl agent {'x' * 64}")
    assert "known: follow, ignore" in balancer.ctl("lb rl agent sed now")
    assert said in balancer.ctl("show lb rl agent")
    balancer.quiet("lb rl agent follow")
    assert "agents are" not in balancer.ctl("show lb rl agent")
    balancer.quiet("lb rl agent sed")
    balancer.quiet("lb rl agent ignore")
    assert "policy" not in balancer.ctl("show lb rl agent")
    balancer.quiet("lb rl agent follow")


def test_agents_can_be_ignored_and_followed_again(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4, options="scheduler sed")
    first, second = (server.ipv4 for server in lab.servers)
    reader = eventually(lambda: readable(balancer))
    slot = {address: int(number) for number, address in SLOT.findall(balancer.ctl("show lb rl vips"))}
    weights = np.zeros(reader.slots, dtype=np.float32)
    weights[slot[second]] = 1.0
    path = next(balancer.shm.glob("*.frames")).with_suffix(".actions")
    writer = penstock_core.ActionsWriter(str(path), reader.slots)
    writer.write(weights, reader.read().generation, penstock_core.boottime_us())
    eventually(lambda: "weights number 1 " in balancer.ctl("show lb rl agent"))
    assert {get(lab, VIP_IPV4) for _ in range(6)} == {b"s2"}
    balancer.quiet(f"{AS} {second} port 8080 weight 0")
    balancer.quiet("lb rl agent ignore")
    assert "agents are ignored" in balancer.ctl("show lb rl agent")
    assert {get(lab, VIP_IPV4) for _ in range(6)} == {b"s1"}
    writer.write(weights, reader.read().generation, penstock_core.boottime_us())
    balancer.quiet(f"{AS} {first} port 8080 weight 2")  # whatever changes, they stay ignored
    assert {get(lab, VIP_IPV4) for _ in range(6)} == {b"s1"}
    balancer.quiet("lb rl agent follow")
    eventually(lambda: "weights number 2 " in balancer.ctl("show lb rl agent"))
    assert {get(lab, VIP_IPV4) for _ in range(6)} == {b"s2"}


def readable(balancer: RunningVpp) -> penstock_core.FrameReader | None:
    """A reader of the only VIP's frames, once there is one."""
    reader = penstock_core.FrameReader(str(next(balancer.shm.glob("*.frames"))))
    try:
        reader.read()
    except penstock_core.ShmError:
        return None
    return reader


def test_a_packet_trace_can_be_read(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    get(lab, VIP_IPV4)
    balancer.ctl("clear trace")
    balancer.ctl("trace add af-packet-input 20")
    get(lab, VIP_IPV4)
    trace = balancer.ctl("show trace")
    assert re.search(
        rf"lb-rl-ip4: TCP {lab.client_ipv4}:\d+ -> {VIP_IPV4}:80\s+forwarded as TCP "
        rf"{lab.balancer_ipv4}:\d+ -> 10\.77\.\d\.2:8080",
        trace,
    ), trace
    assert re.search(rf"lb-rl-nat-return-ip4: TCP 10\.77\.\d\.2:8080 -> {lab.balancer_ipv4}:\d+\s+forwarded", trace)


@pytest.mark.parametrize(
    ("options", "sees"),
    [
        ("forwarding gre", rf"10.77.0.1 > 10.77.1.2: GREv0.* > {VIP_IPV4}.80: Flags \[S\]"),
        ("forwarding l3dsr dscp 9", r"tos 0x24.*\n? *10.77.0.2.\d+ > 10.77.1.2.80: Flags \[S\]"),
    ],
)
def test_one_way_forwarding_takes_whole_packets_to_a_backend(
    lab: Lab, balancer: RunningVpp, options: str, sees: str
) -> None:
    server = lab.servers[0]
    balancer.quiet("lb rl sources 10.77.0.1 ports 16384-28671")
    balancer.quiet(f"lb rl vip {VIP_IPV4} port 80 {options}")
    balancer.quiet(f"{AS} {server.ipv4} port 80")
    # A SYN: connections of other tests may still be closing.
    filters = "ip proto 47 or tcp[tcpflags] & tcp-syn != 0"
    ear = server.namespace.popen(["tcpdump", "-c", "1", "-nvi", "eth0", filters], stdout=-1)

    def heard() -> bool:
        with contextlib.suppress(OSError):
            get(lab, VIP_IPV4, timeout=0.2)
        return ear.poll() is not None

    try:
        eventually(heard)
    finally:
        ear.kill()
    assert ear.stdout is not None
    said = " ".join(ear.stdout.read().split())
    assert re.search(sees, said), said


def test_drops_are_counted_by_reason(lab: Lab, balancer: RunningVpp) -> None:
    balancer.ctl("clear errors")
    balancer.quiet(f"lb rl vip {VIP_IPV4} port 80")
    with pytest.raises(OSError):
        get(lab, VIP_IPV4, timeout=0.5)
    assert "no backend takes new flows" in balancer.ctl("show errors")


def test_an_interface_that_goes_and_comes_back_changes_nothing(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as kept:
        name = kept.get()
        device = f"host-{name.decode()}"
        balancer.ctl(f"set interface state {device} down")
        balancer.ctl(f"set interface state {device} up")
        assert kept.get() == name


def dropped(balancer: RunningVpp) -> int:
    """Packets from clients that VPP says it has dropped."""
    found = re.search(r"drops +(\d+)", balancer.ctl("show interface host-c0"))
    return int(found[1]) if found else 0


def test_while_an_interface_is_down_the_servers_behind_it_wait_and_others_do_not(
    lab: Lab, balancer: RunningVpp
) -> None:
    balancer.balance(VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as one, HttpConnection(lab, VIP_IPV4) as two:
        away = one.get().decode()
        for _ in range(2):  # the server with fewer open flows is next
            assert two.get().decode() != away
        before = dropped(balancer)
        balancer.ctl(f"set interface state host-{away} down")
        try:
            one.socket.sendall(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")
            one.socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                one.socket.recv(4096)
            assert dropped(balancer) > before  # the question, and each time that it was asked again
            assert two.get().decode() != away
        finally:
            balancer.ctl(f"set interface state host-{away} up")
        one.socket.settimeout(10)
        assert one.socket.recv(4096).startswith(b"HTTP/1.1 200")  # what was asked meanwhile
    assert {get(lab, VIP_IPV4) for _ in range(24)} == {b"s1", b"s2"}


def test_a_backends_new_route_counts_at_once(lab: Lab, balancer: RunningVpp) -> None:
    far = "10.99.0.2"
    first, second = lab.servers
    for server in lab.servers:
        server.namespace.sh(f"ip address add {far}/32 dev lo")
    try:
        balancer.balance(VIP_IPV4)
        for server in lab.servers:
            balancer.quiet(f"{AS} {server.ipv4} port 8080 del")
        balancer.quiet(f"{AS} {far} port 8080")
        balancer.ctl(f"ip route add {far}/32 via {first.ipv4}")
        assert get(lab, VIP_IPV4) == b"s1"
        balancer.ctl(f"ip route del {far}/32 via {first.ipv4}")
        balancer.ctl(f"ip route add {far}/32 via {second.ipv4}")
        assert get(lab, VIP_IPV4) == b"s2"
        balancer.ctl(f"ip route del {far}/32 via {second.ipv4}")
    finally:
        for server in lab.servers:
            server.namespace.sh(f"ip address del {far}/32 dev lo")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("lb rl vip 203.0.113.10", "<address> port <n>"),
        ("lb rl vip 203.0.113.300 port 80", "<address> port <n>"),
        ("lb rl vip 203.0.113.10 port 0", "port: 0; must be 1 to 65535"),
        ("lb rl vip 203.0.113.10 port 65536", "port: 65536; must be 1 to 65535"),
        ("lb rl vip 203.0.113.10 port 80 scheduler best", "scheduler maglev|sed|lsq|alias|p2c"),
        ("lb rl vip 203.0.113.10 port 80 table-size 65536", "table_size: 65536 is not a prime"),
        ("lb rl vip 203.0.113.10 port 80 del", "there is no such VIP"),
        ("lb rl agent Little", "policy: `Little` is no name of one"),
        ("lb rl agent follow me", "known: follow, ignore"),
        ("lb rl vip 10.77.0.1 port 16400", "NAT source"),
        ("lb rl as 203.0.113.99 port 80 server 10.0.0.1 port 80", "there is no such VIP"),
        ("lb rl as 203.0.113.1 port 80 server 10.0.0.1", "server <address> port <n>"),
        ("lb rl as 203.0.113.1 port 80 server 10.0.0.1 port 80 weight -1", "weight: must be 0 to"),
        ("lb rl as 203.0.113.1 port 80 server 10.0.0.1 port 80 asleep", "active, draining, failed"),
        ("lb rl as 203.0.113.1 port 80 server fd00::1 port 80", "another family"),
        ("lb rl as 203.0.113.1 port 80 server 203.0.113.1 port 8080", "its address is a VIP's"),
        ("lb rl as 203.0.113.1 port 80 server 10.0.0.9 port 80 del", "no such server"),
        ("lb rl vip 203.0.113.10 port 80 forwarding l3dsr", "dscp: 0; must be 1 to 63"),
        ("lb rl vip 203.0.113.10 port 80 forwarding gre mtu 100", "mtu: 100; must be 1280"),
        ("lb rl vip 203.0.113.10 port 80 forwarding magic", "forwarding nat|gre|l3dsr"),
        ("lb rl vip 203.0.113.10 port 80 dscp 64 forwarding l3dsr", "dscp: 64; must be 0 to 63"),
        ("lb rl vip 203.0.113.10 port 80 mtu 65536 forwarding gre", "mtu: 65536; must be 0 to 65535"),
        ("lb rl vip 203.0.113.1 port 80 also 203.0.113.1", "addresses[1]: that of addresses[0]"),
        ("lb rl vip 203.0.113.1 port 80 also fd00::1", "addresses[1]: of another family"),
        ("lb rl vip 203.0.113.1 port 80 without 203.0.113.9", "no such address"),
        ("lb rl vip 203.0.113.1 port 80 without 203.0.113.1", "`del` removes all of it"),
        ("lb rl vip 203.0.113.1 port 80 timeout tcp 3", "tcp-handshake|tcp-established|tcp-closing"),
        ("lb rl vip 203.0.113.1 port 80 timeout udp-stream 0", "timeouts: each must be 1 to"),
        ("lb rl vip 203.0.113.1 port 80 timeout udp-stream -1", "timeout tcp-handshake|"),
        ("lb rl vip 203.0.113.1 port 80 sleep", "timeout <which> <seconds>, del"),
        ("lb rl node key 0011", "key: 2 bytes; must be 16"),
        ("lb rl node key 001", "key <32 hex digits>, nodes <n>"),
        ("lb rl node nodes 0", "nodes: 0; count this node too"),
        ("lb rl node", "nothing said"),
        ("lb rl sources 10.77.0.1 ports 80-127", "port_first: 80"),
        ("lb rl sources 10.77.0.1 ports 16384-28670", "port_last: 28670"),
        ("lb rl sources 10.77.0.1", "<address> ports <first>-<last>"),
        ("lb rl vip 203.0.113.10", "port: missing or not a number"),
        ("lb rl vip 203.0.113.10 port http", "port: missing or not a number"),
        ("lb rl as 203.0.113.1 server 10.77.1.1 port 80", "port: missing or not a number"),
        ("lb rl as 203.0.113.1 port 80 server 10.77.1.1", "port: missing or not a number"),
        (
            "lb rl vip 203.0.113.1 port 80 forwarding gre",
            "forwarding: protocol, port, address family and forwarding of",
        ),
        ("lb rl vip 203.0.113.10 port 4294967376", "port: missing or not a number"),
        ("lb rl vip 203.0.113.1 port 80 dscp 4294967299 forwarding l3dsr", "unreadable: `dscp 4294967299 "),
        ("lb rl sources 10.77.0.1 ports 4294983680-28671", "<address> ports <first>-<last>"),
        ("lb rl node nodes 18446744073709551618", "key <32 hex digits>, nodes <n>"),
        ("lb rl enable", "already enabled"),
        ("lb rl enable directory here", "absolute path"),
    ],
)
def test_bad_commands_name_what_is_wrong_and_change_nothing(balancer: RunningVpp, command: str, says: str) -> None:
    balancer.quiet("lb rl sources 10.77.0.1 ports 16384-28671")
    balancer.quiet("lb rl vip 203.0.113.1 port 80")
    before = balancer.ctl("show lb rl vips")
    said = balancer.ctl(command)
    assert says in said, said
    assert balancer.ctl("show lb rl vips") == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("flows 10", "flows: 10; must be 64 to 4194304"),
        ("flows 4194305", "flows: 4194305; must be 64 to 4194304"),
        ("vips 0", "vips: 0; must be 1 to 65535"),
        ("slots 7", "slots: 7; must be 8 to 16777216"),
        ("flows 4294967360", "unreadable: `flows 4294967360`"),
    ],
)
def test_a_size_out_of_its_range_is_refused_by_its_field(balancer: RunningVpp, settings: str, says: str) -> None:
    balancer.ctl("lb rl disable")
    assert says in balancer.ctl(f"lb rl enable directory {balancer.shm} {settings}")


def test_help_lists_the_commands(balancer: RunningVpp) -> None:
    listed = balancer.ctl("help lb rl")
    for command in ("enable", "disable", "vip", "as", "sources", "agent", "node"):
        assert command in listed.split(), listed
    for command in ("help show lb rl", "show lb rl", "show lb rl vipz"):
        assert {"vips", "node", "agent", "flows", "stats", "memory"} <= set(balancer.ctl(command).split())
    assert "unknown: `vipz" in balancer.ctl("show lb rl vipz")


def test_a_disabled_load_balancer_says_how_to_enable_it(balancer: RunningVpp) -> None:
    balancer.ctl("lb rl disable")
    for command in (*SHOWN, "lb rl vip 203.0.113.10 port 80"):
        assert "lb rl enable" in balancer.ctl(command)


def test_what_is_shown_beside_the_lb_plugin_of_vpp_is_ours(lab_of_its_own: Lab) -> None:
    # VPP runs the function of `show lb`, too, after an error of a longer command.
    with running_vpp(lab_of_its_own, settings=None, plugins=("lb",)) as running:
        assert "ip4-src-address" in running.ctl("show lb")
        for command in SHOWN:
            shown = running.ctl(command)
            assert "lb rl enable" in shown
            assert "ip4-src-address" not in shown
        assert "ip4-src-address" not in running.ctl("show lb rl vipz")
        assert "enable" in running.ctl("help lb rl").split()
        running.quiet(f"lb rl enable directory {running.shm} flows 4096 vips 64 slots 1024")
        running.quiet("lb rl vip 203.0.113.10 port 80")
        assert "203.0.113.10:80/tcp" in running.ctl("show lb rl vips")
        assert "203.0.113.10" not in running.ctl("show lb vips")


def test_what_follows_disable_is_read_before_anything_happens(balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    assert "`withdrew`; known: withdraw" in balancer.ctl("lb rl disable withdrew")
    assert f"{VIP_IPV4}:80/tcp" in balancer.ctl("show lb rl vips")
