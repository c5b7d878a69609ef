"""The client against a real API server: objects in and out, errors of one tree, watches that end well."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from lightkube.config.models import User, UserExec
from penstock_kube import (
    NAMESPACES,
    NODES,
    PODS,
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    KubeClient,
    NotFound,
    Resource,
    Superseded,
    Unauthorized,
    Unavailable,
    config,
    errors,
)

from e2e.cluster import ControlPlane

pytestmark = pytest.mark.apiserver
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


async def test_an_object_lives_from_create_to_delete(client: KubeClient, namespace: str) -> None:
    created = await client.create(CONFIG_MAPS, config_map(namespace, "a", colour="red"))
    created["data"]["colour"] = "blue"
    await client.replace(CONFIG_MAPS, created)
    assert (await client.get(CONFIG_MAPS, "a", namespace))["data"] == {"colour": "blue"}
    await client.patch(CONFIG_MAPS, "a", {"data": {"shape": "round"}}, namespace)
    assert (await client.get(CONFIG_MAPS, "a", namespace))["data"] == {"colour": "blue", "shape": "round"}
    await client.delete(CONFIG_MAPS, "a", namespace)
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, "a", namespace)
    await client.delete(CONFIG_MAPS, "a", namespace)
    with pytest.raises(NotFound):
        await client.delete(CONFIG_MAPS, "a", namespace, missing_ok=False)


async def test_errors_say_what_and_whether_to_try_again(client: KubeClient, namespace: str) -> None:
    created = await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(AlreadyExists, match="already exists") as exists:
        await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    assert not exists.value.retriable
    await client.replace(CONFIG_MAPS, created | {"data": {"x": "1"}})
    with pytest.raises(Conflict) as stale:
        await client.replace(CONFIG_MAPS, created | {"data": {"x": "2"}})
    assert stale.value.retriable
    with pytest.raises(Invalid, match="Bad_Name"):
        await client.create(CONFIG_MAPS, config_map(namespace, "Bad_Name"))


async def test_apply_owns_its_fields_and_leaves_others(client: KubeClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map(namespace, "a", theirs="1"))
    await client.apply(CONFIG_MAPS, config_map(namespace, "a", ours="2"), field_manager="tests")
    await client.apply(CONFIG_MAPS, config_map(namespace, "a", other="3"), field_manager="tests")
    assert (await client.get(CONFIG_MAPS, "a", namespace))["data"] == {"theirs": "1", "other": "3"}


async def test_apply_with_uid_brings_nothing_back(client: KubeClient, namespace: str) -> None:
    created = await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    await client.delete(CONFIG_MAPS, "a", namespace, uid=created["metadata"]["uid"])
    body = config_map(namespace, "a")
    body["metadata"]["uid"] = created["metadata"]["uid"]
    with pytest.raises(Superseded):
        await client.apply(CONFIG_MAPS, body, field_manager="tests")
    await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(Superseded):
        await client.apply(CONFIG_MAPS, body, field_manager="tests")


async def test_lists_are_read_in_pages(client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        await client.create(CONFIG_MAPS, config_map(namespace, f"map-{number}"))
    monkeypatch.setattr("penstock_kube.client.PAGE_SIZE", 3)
    items, version = await client.list(CONFIG_MAPS, namespace)
    assert [item["metadata"]["name"] for item in items] == [f"map-{number}" for number in range(7)]
    assert int(version) > 0
    pages = [page async for page in client.pages(CONFIG_MAPS, namespace, metadata_only=True)]
    assert [len(page.items) for page in pages] == [3, 3, 1]
    assert "data" not in pages[0].items[0]


async def test_watch_reports_changes(client: KubeClient, namespace: str) -> None:
    _, version = await client.list(CONFIG_MAPS, namespace)
    await client.create(CONFIG_MAPS, config_map(namespace, "a", text="line\u2028end\x85of"))
    await client.delete(CONFIG_MAPS, "a", namespace)
    seen = []
    async for event in client.watch(CONFIG_MAPS, namespace, resource_version=version, server_seconds=5):
        seen.append((event.type, event.object["metadata"]["name"], event.object["data"]["text"]))
        if event.type == "DELETED":
            break
    assert seen == [("ADDED", "a", "line\u2028end\x85of"), ("DELETED", "a", "line\u2028end\x85of")]


async def test_a_silent_watch_is_given_up(client: KubeClient, namespace: str) -> None:
    _, version = await client.list(CONFIG_MAPS, namespace)
    with pytest.raises(Unavailable):
        async for _ in client.watch(CONFIG_MAPS, namespace, resource_version=version, idle_seconds=0.3):
            pass


async def test_strangers_and_forbidden_users_are_told_apart(apiserver: ControlPlane, namespace: str) -> None:
    kubeconfig = apiserver.issue(f"nobody-{namespace}", ["none"])
    async with KubeClient.from_kubeconfig(str(kubeconfig)) as nobody:
        with pytest.raises(Forbidden):
            await nobody.list(NODES)
        with pytest.raises(Forbidden):
            async for _ in nobody.watch(NODES, resource_version="1"):
                pass
    connection = config.load(str(apiserver.kubeconfig))
    token = connection.__class__(connection.server, ca=connection.ca, user=User(token="wrong"))
    async with KubeClient(token) as stranger:
        with pytest.raises(Unauthorized) as refused:
            await stranger.list(NODES)
    assert refused.value.retriable


async def test_a_rotated_token_file_is_read_again(apiserver: ControlPlane, client: KubeClient, tmp_path: Any) -> None:
    file = tmp_path / "token"
    namespace = "default"
    await client.apply(
        Resource("", "v1", "serviceaccounts", "ServiceAccount", True),
        {"metadata": {"name": "rotating", "namespace": namespace}},
        field_manager="tests",
    )
    file.write_text("expired")
    connection = client.connection
    user = User(token_file=str(file))
    async with KubeClient(config.Connection(connection.server, ca=connection.ca, user=user)) as rotating:
        with pytest.raises(Unauthorized):
            await rotating.get_path("/apis")
        file.write_text(apiserver.token(namespace, "rotating"))
        assert (await rotating.get_path("/apis"))["kind"] == "APIGroupList"
        file.unlink()
        auth = config.Connection(connection.server, user=user).auth()
        assert auth is not None
        rotating._http.auth = auth
        with pytest.raises(Unauthorized, match="is the token mounted"):
            await rotating.get_path("/apis")


async def test_a_credential_plugin_gives_the_token(apiserver: ControlPlane, client: KubeClient, tmp_path: Any) -> None:
    await client.apply(
        Resource("", "v1", "serviceaccounts", "ServiceAccount", True),
        {"metadata": {"name": "plugged", "namespace": "default"}},
        field_manager="tests",
    )
    answer = tmp_path / "credential.json"
    answer.write_text(json.dumps({"status": {"token": apiserver.token("default", "plugged")}}))
    plugin = UserExec(apiVersion="client.authentication.k8s.io/v1", command="cat", args=[str(answer)])
    connection = config.Connection(client.connection.server, ca=client.connection.ca, user=User(exec=plugin))
    assert await connection.token()
    async with KubeClient(connection) as plugged:
        assert (await plugged.get_path("/apis"))["kind"] == "APIGroupList"
    answer.write_text("not json")
    with pytest.raises(errors.KubeConfigError, match="gave no token"):
        await connection.token()


async def test_an_absent_server_is_unavailable() -> None:
    async with KubeClient(config.Connection("http://127.0.0.1:1")) as client:
        with pytest.raises(Unavailable) as absent:
            await client.list(NAMESPACES)
        assert absent.value.retriable
        with pytest.raises(Unavailable):
            async for _ in client.watch(NAMESPACES, resource_version="1"):
                pass


async def test_a_server_that_is_no_api_server_is_unavailable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with KubeClient(config.Connection(f"http://127.0.0.1:{port}")) as client:
            with pytest.raises(Unavailable, match="not JSON"):
                await client.list(NAMESPACES)


def test_a_namespaced_object_needs_its_namespace() -> None:
    with pytest.raises(ValueError, match="a namespace is needed"):
        PODS.path(None, "web")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        (429, {"details": {"retryAfterSeconds": 7}}, errors.TooManyRequests),
        (503, {"message": "shutting down"}, errors.Unavailable),
        (504, {"details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}, errors.Gone),
        (410, {"reason": "Expired"}, errors.Gone),
        (422, {"reason": "Invalid"}, errors.Invalid),
        (405, {}, errors.Invalid),
    ],
)
def test_statuses_become_errors(code: int, status: dict[str, Any], expected: type[ApiError]) -> None:
    error = errors.from_status(code, status, doing="GET /x")
    assert type(error) is expected
    assert error.retry_after == (7.0 if code == 429 else None)
    assert "GET /x" in str(error)


def test_a_proxy_page_is_quoted() -> None:
    assert errors.parse_status(b"<html>busy</html>") == {"message": "<html>busy</html>"}
    assert errors.parse_status(b'"odd"') == {"message": "odd"}
    assert errors.from_status(502, {}, doing="x", retry_after="soon").retry_after is None
