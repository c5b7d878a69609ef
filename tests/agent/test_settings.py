"""Settings from the environment."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from penstock_agent.errors import ConfigError
from penstock_agent.settings import Settings


def test_a_pods_environment():
    settings = Settings.from_environment(
        {
            "NODE_NAME": "node-1",
            "POD_NAMESPACE": "penstock-system",
            "PENSTOCK_DATAPLANE": "edge",
            "PENSTOCK_RUN_DIR": "/run/penstock/edge",
            "PENSTOCK_STATE_DIR": "/var/lib/penstock/edge",
            "PATH": "/usr/bin",
        }
    )
    assert (settings.node_name, settings.dataplane) == ("node-1", "edge")
    assert settings.socket == Path("/run/penstock/edge/control.sock")


def test_files_without_kubernetes():
    settings = Settings.from_environment(
        {
            "PENSTOCK_SOURCE": "files",
            "PENSTOCK_FILES": "/etc/penstock",
            "PENSTOCK_NODE_ADDRESSES": "192.0.2.1, 2001:db8::1",
        }
    )
    assert settings.node_addresses == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "set NODE_NAME"),
        ({"PENSTOCK_SOURCE": "files"}, "name a directory of YAML files"),
        ({"NODE_NAME": "a", "PENSTOCK_PORT": "seven"}, "PENSTOCK_PORT: "),
        ({"NODE_NAME": "a", "PENSTOCK_SOURCE": "etcd"}, "PENSTOCK_SOURCE: .*'kubernetes' or 'files'"),
        ({"NODE_NAME": "a", "PENSTOCK_NODE_ADDRESSES": "here"}, "PENSTOCK_NODE_ADDRESSES: "),
    ],
)
def test_mistakes_name_the_variable(environment, message):
    with pytest.raises(ConfigError, match=message):
        Settings.from_environment(environment)
