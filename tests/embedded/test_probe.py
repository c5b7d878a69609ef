"""The probe that kubelets start: cheap, and right about a data plane that answers, and one that does not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

from penstock_embedded import probe
from penstock_embedded.messages import Method, Request


def run(run_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock_embedded.probe", str(run_dir), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def answering(run_dir: Path, answer: bytes) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(run_dir / "control.sock"))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_what_it_sends_is_a_request_of_the_protocol() -> None:
    assert Request.model_validate_json(probe.HELLO).method is Method.HELLO


def test_an_answer_is_success(tmp_path: Path) -> None:
    server = answering(tmp_path, b'{"id":1,"result":{"instance_id":"x"}}\n')
    assert run(tmp_path).returncode == 0
    server.join()


def test_a_refusal_is_failure(tmp_path: Path) -> None:
    server = answering(tmp_path, b'{"id":0,"error":{"code":"forbidden"}}\n')
    done = run(tmp_path)
    server.join()
    assert done.returncode == 1
    assert "forbidden" in done.stderr


def test_no_socket_is_failure_that_names_it(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "control.sock" in done.stderr


def test_who_says_that_vpp_is_away_is_alive_and_not_ready(tmp_path: Path) -> None:
    for options, code in (((), 1), (("--alive",), 0)):
        server = answering(tmp_path, b'{"id":1,"result":null,"error":{"code":"unreachable"}}\n')
        assert run(tmp_path, *options).returncode == code
        server.join()
        (tmp_path / "control.sock").unlink()
