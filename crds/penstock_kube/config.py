"""Where the API server is and how to show who we are: from a kubeconfig or from inside a pod.

lightkube reads the files; what it found becomes a `Connection`, which both our client and kopf's can use.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec
import yaml
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User, UserExec
from lightkube.core.exceptions import ConfigError

from penstock_kube.errors import KubeConfigError

DEFAULT_KUBECONFIG = "~/.kube/config"


@dataclass(frozen=True)
class Connection:
    """An API server and our credentials for it; certificates as PEM text."""

    server: str
    namespace: str = "default"
    ca: str | None = None
    insecure: bool = False
    client_cert: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    user: User | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, where no proxy can be meant."""
        host = urlsplit(self.server).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def ssl_context(self) -> ssl.SSLContext:
        """TLS context with the cluster's CA and our client certificate."""
        context = ssl.create_default_context(cadata=self.ca)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert and self.client_key:
            # The ssl module takes key pairs from files only; the file is gone before this returns.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
                pem.write(self.client_cert + "\n" + self.client_key)
                pem.flush()
                context.load_cert_chain(pem.name)
        return context

    def auth(self) -> httpx.Auth | None:
        """How requests are authenticated, beside a client certificate."""
        user = self.user
        if user is None:
            return None
        if user.token_file:
            return TokenFileAuth(Path(user.token_file))
        if user.token:
            return BearerAuth(user.token)
        if user.exec:
            return ExecAuth(user.exec)
        if user.username and user.password:
            return httpx.BasicAuth(user.username, user.password)
        return None

    async def token(self) -> str | None:
        """Return the bearer token as it is now, for clients that do their own requests."""
        auth = self.auth()
        return await auth.token() if isinstance(auth, BearerAuth) else None


class BearerAuth(httpx.Auth):
    """A fixed bearer token; subclasses fetch theirs and fetch it again after a 401."""

    def __init__(self, token: str | None = None) -> None:
        self._token = token

    async def token(self) -> str:
        """Return the token, fetched if need be."""
        if self._token is None:
            self._token = await self._fetch()
        return self._token

    async def _fetch(self) -> str:
        raise KubeConfigError("the bearer token was not accepted; put a valid one into the kubeconfig")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send with the token; once more with a fresh one if it was not accepted."""
        request.headers["Authorization"] = f"Bearer {await self.token()}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and type(self) is not BearerAuth:
            self._token = None
            request.headers["Authorization"] = f"Bearer {await self.token()}"
            yield request


class TokenFileAuth(BearerAuth):
    """A token that somebody else rotates in a file: the kubelet does so for service accounts."""

    REREAD_SECONDS = 60.0  # kubelets rotate at 80 % of a lifetime of at least 10 minutes

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._read_at = 0.0

    async def token(self) -> str:
        """Return the token, read again once a minute."""
        now = asyncio.get_running_loop().time()
        if self._token is None or now - self._read_at > self.REREAD_SECONDS:
            self._token, self._read_at = await self._fetch(), now
        return self._token

    async def _fetch(self) -> str:
        try:
            return self._path.read_text().strip()
        except OSError as error:
            raise KubeConfigError(f"token file {self._path}: {error.strerror}; is the token mounted?") from error


class ExecAuth(BearerAuth):
    """A token from a credential plugin (`users[].user.exec` of a kubeconfig)."""

    def __init__(self, plugin: UserExec) -> None:
        super().__init__()
        self._exec = plugin

    async def _fetch(self) -> str:
        info = {"apiVersion": self._exec.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
        environ = dict(os.environ) | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
        environ |= {variable.name: variable.value for variable in self._exec.env or ()}
        try:
            process = await asyncio.create_subprocess_exec(
                self._exec.command, *(self._exec.args or ()), env=environ, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            token = json.loads(output)["status"]["token"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = self._exec.installHint or "run it by hand and see what it prints"
            raise KubeConfigError(
                f"credential plugin {self._exec.command!r} gave no token ({error!r}); {hint}"
            ) from error
        return str(token)


def load(path: str | None = None, context: str | None = None) -> Connection:
    """Find the API server: `path`, else the pod we run in, else $KUBECONFIG, else ~/.kube/config."""
    config = _read_config(path)
    try:
        single = config.get(context_name=context)
    except (ConfigError, KeyError) as error:
        raise KubeConfigError(f"kubeconfig {config.fname}: {error}; see `kubectl config get-contexts`") from error
    return _connection(cast(SingleConfig, single))  # None only where a default was passed


def _read_config(path: str | None) -> KubeConfig:
    in_pod = Path(SERVICE_ACCOUNT, "token").exists() and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if path is None and in_pod:
            return KubeConfig.from_service_account()
        files = path or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
        return KubeConfig.from_file(files.split(os.pathsep)[0])
    except (ConfigError, OSError, yaml.YAMLError, msgspec.ValidationError, KeyError, TypeError) as error:
        raise KubeConfigError(f"{error}; give --kubeconfig, set KUBECONFIG or run inside a cluster") from error


def _connection(single: SingleConfig) -> Connection:
    cluster, user = single.cluster, single.user
    if cluster is None or not cluster.server:
        raise KubeConfigError(f"context {single.context_name!r} names no server")
    return Connection(
        server=cluster.server.rstrip("/"),
        namespace=single.namespace,
        ca=_pem(cluster.certificate_auth_data, cluster.certificate_auth, single),
        insecure=bool(cluster.insecure),
        client_cert=_pem(user.client_cert_data, user.client_cert, single) if user else None,
        client_key=_pem(user.client_key_data, user.client_key, single) if user else None,
        user=user,
    )


def _pem(data: str | None, file: str | None, single: SingleConfig) -> str | None:
    try:
        if data:
            return base64.b64decode(data).decode()
        if file:
            return Path(cast(Any, single.abs_file(file))).read_text()
    except (OSError, ValueError, ConfigError) as error:
        raise KubeConfigError(f"context {single.context_name!r}: cannot read a certificate: {error}") from error
    return None
