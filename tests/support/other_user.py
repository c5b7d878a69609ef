"""Functions run as another user, without capabilities, as an agent is in its pod."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

AGENT_ID = 65532


def as_agent(function: Callable[[], T], *, user: int = AGENT_ID) -> T:
    """Run a function as the agent's user and group in a process of its own; return its result or raise its error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(_outcome(function), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    result: T
    result, error = pickle.loads(content)
    if error is not None:
        raise error
    return result


def _outcome(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:
        return None, error
