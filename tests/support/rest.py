"""A plain client of the API server for tests that are about its own words: status, message, fields."""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from penstock_api import KINDS


@dataclass(frozen=True)
class Answer:
    """What the API server says to a request."""

    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def fields(self) -> list[str]:
        return [cause.get("field", "") for cause in self.body.get("details", {}).get("causes", ())]


class Rest:
    """Creates, reads and changes objects of our kinds, as strictly as kubectl does."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        if "client-certificate-data" in user:
            pair = kubeconfig.with_suffix(".pem")
            pair.write_text(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
            context.load_cert_chain(pair)
        self._http = httpx.Client(
            base_url=cluster["server"], verify=context, headers=headers, timeout=20, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def create(self, obj: dict[str, Any], *, dry_run: bool = False) -> Answer:
        params = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        return self._answer(self._http.post(path_of(obj, named=False), params=params, json=obj))

    def get(self, obj: dict[str, Any]) -> Answer:
        return self._answer(self._http.get(path_of(obj)))

    def read(self, path: str) -> dict[str, Any]:
        """Read what is no object: discovery, OpenAPI."""
        return self._answer(self._http.get(path)).body

    def merge(self, obj: dict[str, Any], patch: dict[str, Any], subresource: str = "") -> Answer:
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._answer(self._http.patch(path_of(obj) + subresource, content=json.dumps(patch), headers=headers))

    def delete(self, obj: dict[str, Any]) -> Answer:
        return self._answer(self._http.delete(path_of(obj)))

    @staticmethod
    def _answer(response: httpx.Response) -> Answer:
        return Answer(response.status_code, response.json())


def path_of(obj: dict[str, Any], *, named: bool = True) -> str:
    """Return the path under which the API server has an object."""
    group, metadata = obj["apiVersion"], obj["metadata"]
    plural = KINDS[obj["kind"]].info.plural if obj["kind"] in KINDS else f"{obj['kind'].lower()}s"
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{namespace}/{plural}" + (f"/{metadata['name']}" if named else "")


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()
