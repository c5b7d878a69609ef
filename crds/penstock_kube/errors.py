"""Errors of the API boundary: one tree, each saying whether trying again can help.

    ApiError
    ├── Unavailable           not reached, timed out or 5xx: try again later
    │   └── TooManyRequests   429: try again after `retry_after`
    ├── Unauthorized          401: try again, tokens rotate
    ├── Forbidden             403: needs RBAC or an admission policy changed
    ├── NotFound              404
    │   └── Superseded        the object of this UID is gone, whether or not another has its name
    ├── Conflict              409: read again, then try again
    │   └── AlreadyExists     409 on create
    ├── Gone                  410: the resource version is too old, list again
    └── Invalid               400, 405, 413, 415, 422: the request itself is wrong

`KubeConfigError` stands apart: nothing was sent yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar


class KubeConfigError(ValueError):
    """No usable configuration of an API server was found."""


class ApiError(Exception):
    """The API server refused a request or was not reached.

    `reason` is the server's machine-readable word (`AlreadyExists`, `FieldValueInvalid`); `retry_after`
    is in seconds where the server named a time.
    """

    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Unavailable(ApiError):
    """The API server was not reached, gave no answer in time or failed inside."""

    retriable = True


class TooManyRequests(Unavailable):
    """The API server asks for patience."""


class Unauthorized(ApiError):
    """The credentials were not accepted; a rotated token may be by the next request."""

    retriable = True


class Forbidden(ApiError):
    """RBAC or an admission policy forbids the request."""


class NotFound(ApiError):
    """No such object, or no such kind."""


class Superseded(NotFound):
    """The object of the UID that was asked for is gone, whether or not another has taken its name."""


class Conflict(ApiError):
    """The object changed, or a field is owned by somebody else."""

    retriable = True


class AlreadyExists(Conflict):
    """An object of this name exists."""

    retriable = False


class Gone(ApiError):
    """The resource version or continue token is too old: list again."""

    retriable = True


class Invalid(ApiError):
    """The request itself is wrong: its schema, a CEL rule, its size."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    429: TooManyRequests,
}


def from_status(code: int, status: Mapping[str, Any], *, doing: str, retry_after: str | None = None) -> ApiError:
    """Translate a Kubernetes `Status` (or whatever came in its place) into the tree."""
    reason = str(status.get("reason", ""))
    if reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExists
    elif reason in ("Gone", "Expired") or _is_version_ahead(status):
        kind = Gone
    elif code >= 500:
        kind = Unavailable
    else:
        kind = _BY_STATUS.get(code, Invalid)
    message = str(status.get("message") or f"HTTP {code}")
    return kind(f"{doing}: {message}", status=code, reason=reason, retry_after=_seconds(retry_after, status))


def parse_status(content: bytes) -> dict[str, Any]:
    """Read a `Status` body; anything else (a proxy's HTML page) becomes its first 200 characters."""
    try:
        parsed = json.loads(content)
    except ValueError:
        return {"message": content[:200].decode(errors="replace").strip()}
    return parsed if isinstance(parsed, dict) else {"message": str(parsed)[:200]}


def _is_version_ahead(status: Mapping[str, Any]) -> bool:
    """After etcd was restored our version may lie in the future: as useless as one too old."""
    causes = (status.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes)


def _seconds(header: str | None, status: Mapping[str, Any]) -> float | None:
    value = header if header is not None else (status.get("details") or {}).get("retryAfterSeconds")
    try:
        return float(value) if value is not None else None
    except (TypeError, ValueError):
        return None
