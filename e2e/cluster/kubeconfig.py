"""kubeconfig files with everything embedded, so that one file can be carried anywhere."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.certificates import KeyPair, write_private


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


@dataclass(frozen=True)
class Endpoint:
    """Where an API server is and the authority that its certificate comes from."""

    url: str
    authority: bytes


def write_kubeconfig(
    path: Path, endpoint: Endpoint, name: str, credential: KeyPair | str, *, namespace: str = "default"
) -> Path:
    """Write a kubeconfig for a client certificate or a bearer token (JSON, which is YAML)."""
    if isinstance(credential, str):
        user = {"token": credential}
    else:
        user = {
            "client-certificate-data": _encode(credential.certificate),
            "client-key-data": _encode(credential.key),
        }
    cluster = {"server": endpoint.url, "certificate-authority-data": _encode(endpoint.authority)}
    context = {"cluster": "penstock", "user": name, "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "penstock", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "penstock", "context": context}],
        "current-context": "penstock",
    }
    write_private(path, json.dumps(document, indent=1).encode())
    return path
