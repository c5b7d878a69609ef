"""A client of the API server: raw JSON objects in and out, errors of one tree.

No object model, no cache, no retries beyond a connection that died while idle: callers own these.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from penstock_kube import config, errors
from penstock_kube.resources import Resource

PAGE_SIZE = 500
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MAX_WATCH_LINE = 16 * 1024 * 1024  # etcd refuses objects above 1.5 MiB; JSON may be a few times that

Object = dict[str, Any]


@dataclass(frozen=True)
class WatchEvent:
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


@dataclass(frozen=True)
class Page:
    """Part of a list; the last part's `resource_version` is where a watch may start."""

    items: list[Object]
    resource_version: str


class KubeClient:
    """Talks to one API server over a pool of connections; an async context manager."""

    def __init__(self, connection: config.Connection, *, user_agent: str = "penstock", timeout: float = 30.0) -> None:
        self.connection = connection
        self._http = httpx.AsyncClient(
            base_url=connection.server,
            verify=connection.ssl_context(),
            auth=connection.auth(),
            headers={"User-Agent": user_agent},
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_connections=128, max_keepalive_connections=32),
            trust_env=not connection.is_local,
        )

    @classmethod
    def from_kubeconfig(
        cls, path: str | None = None, context: str | None = None, *, user_agent: str = "penstock"
    ) -> KubeClient:
        """Connect as a kubeconfig says; without a path as a pod would, then $KUBECONFIG, then ~/.kube/config."""
        return cls(config.load(path, context), user_agent=user_agent)

    @property
    def namespace(self) -> str:
        """Namespace of the context, or that of the pod we run in."""
        return self.connection.namespace

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Object:
        """Read one object."""
        return await self._request("GET", res.path(namespace, name))

    async def get_path(self, path: str) -> Object:
        """Read a JSON document that is no object of a kind: `/version`, say."""
        return await self._request("GET", path)

    async def list(
        self, res: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """Read all objects, page by page; with the resource version to watch from."""
        items: list[Object] = []
        version = ""
        async for page in self.pages(res, namespace, label_selector=label_selector, field_selector=field_selector):
            items += page.items
            version = page.resource_version
        return items, version

    async def pages(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[Page]:
        """Read all objects, one page at a time, so that a caller may prune each before the next arrives."""
        params = _params(limit=str(PAGE_SIZE), labelSelector=label_selector, fieldSelector=field_selector)
        headers = {"Accept": METADATA_LIST} if metadata_only else None
        while True:
            body = await self._request("GET", res.path(namespace), params=params, headers=headers)
            metadata = body.get("metadata") or {}
            yield Page(body.get("items") or [], metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            params["continue"] = metadata["continue"]

    async def create(self, res: Resource, obj: Object, namespace: str | None = None) -> Object:
        """Create an object."""
        return await self._request("POST", res.path(namespace or _namespace_of(obj)), body=_typed(res, obj))

    async def replace(self, res: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace an object; `metadata.resourceVersion` in it guards against lost updates."""
        path = res.path(_namespace_of(obj), obj["metadata"]["name"], subresource)
        return await self._request("PUT", path, body=_typed(res, obj))

    async def patch(
        self, res: Resource, name: str, patch: Object, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """Merge-patch an object; `metadata.resourceVersion` in the patch guards against lost updates."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self._request("PATCH", res.path(namespace, name, subresource), body=patch, headers=headers)

    async def apply(
        self,
        res: Resource,
        obj: Object,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Object:
        """Server-side apply: `obj` holds the fields that `field_manager` owns, all of them and no others.

        With `metadata.uid` in it, an object that was deleted meanwhile is not brought back (Superseded).
        """
        path = res.path(_namespace_of(obj), obj["metadata"]["name"], subresource)
        try:
            return await self._request(
                "PATCH",
                path,
                params={"fieldManager": field_manager, "force": "true" if force else "false"},
                headers={"Content-Type": "application/apply-patch+yaml"},
                body=_typed(res, obj),
            )
        except (errors.Conflict, errors.Invalid) as error:
            if obj["metadata"].get("uid") and ("uid mismatch" in str(error) or "metadata.uid" in str(error)):
                raise errors.Superseded(str(error), status=error.status, reason=error.reason) from error
            raise

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
        missing_ok: bool = True,
    ) -> None:
        """Delete an object; with `uid` only if it is still that one."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", res.path(namespace, name), body=body)
        except errors.NotFound:
            if not missing_ok:
                raise

    async def watch(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        server_seconds: int = 300,
        idle_seconds: float = 90.0,
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after `resource_version` until the server ends the watch (`server_seconds`).

        A server sends a bookmark about once a minute: silence for `idle_seconds` is a dead connection and
        raises Unavailable. An expired version raises Gone.
        """
        params = _params(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(server_seconds),
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        doing = f"watch {res.plural}"
        timeout = httpx.Timeout(idle_seconds, connect=5.0, pool=5.0)
        try:
            async with self._http.stream("GET", res.path(namespace), params=params, timeout=timeout) as response:
                if response.is_error:
                    raise _error(response, await response.aread(), doing)
                async for line in _lines(response):
                    yield _watch_event(json.loads(line), doing)
        except errors.KubeConfigError as error:
            raise errors.Unauthorized(f"{doing}: {error}") from error
        except (httpx.TransportError, ValueError) as error:
            raise errors.Unavailable(f"{doing}: {_describe(error)}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> Object:
        doing = f"{method} {path}"
        content = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        sent = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        try:
            response = await self._send(method, path, params, sent, content)
        except errors.KubeConfigError as error:
            raise errors.Unauthorized(f"{doing}: {error}") from error
        except httpx.TransportError as error:
            raise errors.Unavailable(f"{doing}: {_describe(error)}") from error
        if response.is_error:
            raise _error(response, response.content, doing)
        try:
            parsed = json.loads(response.content)
        except ValueError as error:
            raise errors.Unavailable(f"{doing}: the answer is not JSON: {response.text[:200]}") from error
        return parsed if isinstance(parsed, dict) else {}

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        content: bytes | None,
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, params=params, headers=headers, content=content)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            # An idle connection that the server closed just as we wrote: send again what may safely happen twice.
            if method not in ("GET", "PUT") and headers["Content-Type"] != "application/apply-patch+yaml":
                raise
            return await self._http.request(method, path, params=params, headers=headers, content=content)


def _params(**params: str) -> dict[str, str]:
    return {key: value for key, value in params.items() if value}


def _namespace_of(obj: Object) -> str | None:
    namespace = obj["metadata"].get("namespace")
    return str(namespace) if namespace else None


def _typed(res: Resource, obj: Object) -> Object:
    return {"apiVersion": res.api_version, "kind": res.kind, **obj}


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _error(response: httpx.Response, content: bytes, doing: str) -> errors.ApiError:
    status = errors.parse_status(content)
    return errors.from_status(
        response.status_code, status, doing=doing, retry_after=response.headers.get("Retry-After")
    )


def _watch_event(line: Object, doing: str) -> WatchEvent:
    kind, obj = str(line.get("type")), line.get("object") or {}
    if kind == "ERROR":
        raise errors.from_status(int(obj.get("code", 500)), obj, doing=doing)
    return WatchEvent(kind, obj)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Split at newlines only: `str.splitlines` also splits at characters that JSON strings may hold."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            parts.append(line)
            yield b"".join(parts)
            parts, size = [], 0
        if rest:
            parts.append(rest)
            size += len(rest)
            if size > MAX_WATCH_LINE:
                raise ValueError(f"a watch event is longer than {MAX_WATCH_LINE} bytes")
