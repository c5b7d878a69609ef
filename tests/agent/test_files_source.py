"""Source `files`: a directory of YAML, watched; what is wrong with it is said, and the last good state stays."""

from __future__ import annotations

import asyncio
import re
from ipaddress import ip_address

import pytest
import watchfiles
from penstock_agent.errors import ConfigError
from penstock_agent.files import StateStore
from penstock_agent.findings import NodeFindings
from penstock_agent.sources import files
from penstock_agent.sources.files import FilesSource, default_addresses

from tests.support.waiting import eventually, running

VIP = """\
apiVersion: penstock.dev/v1alpha1
kind: LoadBalancerVIP
metadata: {name: web}
spec:
  addresses: [203.0.113.10]
  ports: [{port: 80, targetPort: 8080}]
  backends: {endpoints: [{address: 10.0.0.1}]}
"""
POLICY = """\
apiVersion: penstock.dev/v1alpha1
kind: RLPolicy
metadata: {name: fast}
spec: {heuristic: little}
"""
DATAPLANE = """\
apiVersion: penstock.dev/v1alpha1
kind: DataPlane
metadata: {name: here}
spec: {natSource: {portFirst: 20480, portLast: 24575}, staticEndpointCIDRs: [10.0.0.0/8], limits: {maxTcpSeconds: 900}}
"""


def source_of(directory, tmp_path, on_change=lambda: None, address="192.0.2.1", node_name=""):
    store = StateStore(tmp_path / "state", NodeFindings())
    return FilesSource(directory, on_change, store=store, node_name=node_name, node_addresses=(ip_address(address),))


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "files"
    path.mkdir()
    (path / "vip.yaml").write_text(VIP)
    return path


@pytest.fixture
def source(directory, tmp_path):
    changes = []
    source = source_of(directory, tmp_path, lambda: changes.append(1), node_name="here")
    source.changes = changes
    return source


async def test_a_directory_is_a_snapshot(source, directory):
    (directory / "more.yml").write_text(f"{POLICY}---\n{DATAPLANE}")
    (directory / "notes.txt").write_text("not: [yaml")
    (directory / "service.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: other}\n")
    await source.load()
    assert source.error == ""
    snapshot = source.snapshot
    assert [served.vip.key for served in snapshot.vips] == ["default/web"]
    assert snapshot.vips[0].vip.metadata.uid == "file:default/web"
    assert snapshot.policies[("default", "fast")].heuristic == "little"
    assert snapshot.node.data_plane_name == "here"
    assert snapshot.node.nat_source.port_first == 20480
    assert [str(network) for network in snapshot.node.static_endpoint_cidrs] == ["10.0.0.0/8"]
    assert snapshot.node.limits.max_tcp_seconds == 900
    assert snapshot.vip_addresses == {ip_address("203.0.113.10")}


async def test_one_file_will_do(directory, tmp_path):
    source = source_of(directory / "vip.yaml", tmp_path)
    await source.load()
    assert len(source.snapshot.vips) == 1
    assert [str(network) for network in source.snapshot.node.static_endpoint_cidrs] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("machine_id", ["", "0123456789abcdef0123456789abcdef"])
async def test_the_scheduler_key_stays(directory, tmp_path, monkeypatch, machine_id):
    monkeypatch.setattr(files, "MACHINE_ID", tmp_path / "machine-id")
    (tmp_path / "machine-id").write_text(machine_id)
    keys = set()
    for _ in range(2):
        store = StateStore(tmp_path / "state", NodeFindings())
        source = FilesSource(
            directory, lambda: None, store=store, node_name="", node_addresses=(ip_address("192.0.2.1"),)
        )
        await source.load()
        await store.flush()
        assert source.snapshot is not None
        keys.add(source.snapshot.node.scheduler_key)
    assert len(keys) == 1


async def test_without_a_disk_the_scheduler_key_follows_from_the_machine(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MACHINE_ID", tmp_path / "machine-id")
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "state").write_text("not a directory")
    sources = [source_of(directory, tmp_path) for _ in range(2)]
    for each in sources:
        await each.load()
    assert len({each.snapshot.node.scheduler_key for each in sources}) == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (VIP.replace("port: 80", "port: 0"), r"vip\.yaml:\d+: .*spec\.ports\[0\]\.port: must be at least 1"),
        (VIP.replace("backends", "backend"), r"vip\.yaml:\d+: .*spec\.backend: unknown field.*backends"),
        (VIP.replace("  addresses: [203.0.113.10]\n", ""), r"spec\.addresses: is required in files"),
        (VIP.replace("endpoints: [{address: 10.0.0.1}]", "service: {name: web}"), r"list spec\.backends\.endpoints"),
        ("a: [", r"vip\.yaml:\d+: not YAML"),
        (VIP.replace("kind: LoadBalancerVIP", "kind: LoadBalancer"), r"not a kind of Penstock"),
        (f"{VIP}---\n{DATAPLANE}---\n{DATAPLANE.replace('here', 'there')}", "DataPlane there: a second DataPlane"),
    ],
)
async def test_a_bad_file_names_the_fix_and_changes_nothing(source, directory, content, error):
    await source.load()
    before = source.snapshot
    (directory / "vip.yaml").write_text(content)
    await source.load()
    assert re.search(error, source.error, re.DOTALL), source.error
    assert source.snapshot.vips == before.vips
    assert source.ages()["files"] > 0


async def test_the_others_are_served_at_the_first_start(source, directory):
    (directory / "bad.yaml").write_text("[" * 100)
    (directory / "also-bad.yaml").write_text(f"{VIP.replace('web', 'one').replace('port: 80', 'port: 0')}---\n{POLICY}")
    await source.load()
    assert [served.vip.key for served in source.snapshot.vips] == ["default/web"]
    assert ("default", "fast") in source.snapshot.policies
    assert "bad.yaml:1: is nested" in source.error
    assert "also-bad.yaml:6: LoadBalancerVIP one: spec.ports[0].port" in source.error


@pytest.mark.parametrize("content", ["a: [", VIP.replace("port: 80", "port: 0")])
async def test_what_goes_bad_while_nothing_runs_keeps_its_last_good_state(directory, tmp_path, content):
    before = source_of(directory, tmp_path)
    await before.load()
    await before._store.flush()
    (directory / "vip.yaml").write_text(content)
    (directory / "more.yaml").write_text(VIP.replace("web", "more").replace(".10]", ".11]"))
    after = source_of(directory, tmp_path)
    await after.load()
    assert sorted(served.vip.key for served in after.snapshot.vips) == ["default/more", "default/web"]
    assert next(s for s in after.snapshot.vips if s.vip.key == "default/web") == before.snapshot.vips[0]
    (directory / "vip.yaml").write_text(VIP.replace("port: 80", "port: 81"))
    await after.load()
    assert after.error == ""
    assert {served.vip.spec.ports[0].port for served in after.snapshot.vips} == {80, 81}


async def test_what_is_removed_from_a_file_is_removed_though_another_object_in_it_is_bad(source, directory):
    two = VIP.replace("web", "more").replace(".10]", ".11]")
    (directory / "vip.yaml").write_text(f"{VIP}---\n{two}")
    await source.load()
    (directory / "vip.yaml").write_text(VIP.replace("port: 80", "port: 0"))
    await source.load()
    assert [served.vip.key for served in source.snapshot.vips] == ["default/web"]


async def test_a_source_address_may_come_later(source, directory, monkeypatch):
    def none():
        raise ConfigError("no default route")

    monkeypatch.setattr(files, "default_addresses", none)
    source._node_addresses = ()
    async with running(source.run()):
        await eventually(lambda: source.error)
        assert source.snapshot is None
        source._node_addresses = (ip_address("192.0.2.1"),)
        await eventually(lambda: source.snapshot is not None)


async def test_without_watches_files_are_polled(source, directory, monkeypatch):
    real = watchfiles.awatch

    def none_left(*arguments, force_polling, **options):
        if not force_polling:
            raise OSError(28, "No space left on device")
        return real(*arguments, force_polling=True, **options)

    monkeypatch.setattr(watchfiles, "awatch", none_left)
    async with running(source.run()):
        await eventually(lambda: source.snapshot is not None)
        await asyncio.sleep(1.5)
        (directory / "vip.yaml").write_text(VIP.replace("port: 80", "port: 81"))
        await eventually(lambda: source.snapshot.vips[0].vip.spec.ports[0].port == 81)


async def test_bytes_that_are_no_text_are_an_error_of_their_file(source, directory):
    (directory / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    await source.load()
    assert "binary.yaml" in source.error


async def test_the_same_object_in_two_files_is_an_error_that_names_both(source, directory):
    (directory / "copy.yaml").write_text(VIP)
    await source.load()
    assert "vip.yaml" in source.error
    assert "copy.yaml" in source.error


async def test_a_source_address_that_backends_cannot_reach_is_refused(directory, tmp_path):
    source = source_of(directory, tmp_path, address="127.0.0.1")
    await source.load()
    assert "node_addresses: 127.0.0.1 cannot be reached" in source.error


def test_this_machines_addresses_are_found():
    assert all(not address.is_loopback for address in default_addresses())


async def test_changes_are_seen(source, directory):
    async with running(source.run()):
        await eventually(lambda: source.snapshot is not None)
        (directory / "vip.yaml").write_text(VIP.replace("port: 80", "port: 81"))
        await eventually(lambda: source.snapshot.vips[0].vip.spec.ports[0].port == 81)
        (directory / "vip.yaml").write_text("kind: [")
        await eventually(lambda: source.error)
        (directory / "vip.yaml").write_text(VIP)
        await eventually(lambda: not source.error and source.snapshot.vips[0].vip.spec.ports[0].port == 80)
        (directory / "vip.yaml").unlink()
        await eventually(lambda: source.snapshot.vips == ())


async def test_a_directory_may_come_later(tmp_path):
    path = tmp_path / "later"
    source = source_of(path, tmp_path)
    async with running(source.run()):
        await eventually(lambda: "No such file" in source.error)
        path.mkdir()
        (path / "vip.yaml").write_text(VIP)
        await eventually(lambda: source.snapshot is not None)
