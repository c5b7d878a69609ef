"""`n_active`, `active_us` and `n_turn` of a data plane beside what the servers behind it know."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import penstock_core

from tests.support.dataplane import VIP_IPV4, RunningDataplane, vip
from tests.support.lab import Lab, eventually
from tests.support.netns import Namespace
from tests.support.outstanding import port_of

PROGRAM = Path(__file__).with_name("outstanding.py")
WARM_UP_SECONDS, TAIL_SECONDS = 1.5, 0.5  # of a load, that do not count


@dataclass(frozen=True)
class Comparison:
    """Requests outstanding on average between two frames, as the server and the data plane count them."""

    known: float
    measured: float
    frames: int
    rate: float  # requests per second
    requests: int  # that the server had
    answered: int  # of them, as the data plane counts

    @property
    def error(self) -> float:
        """Relative error of the data plane."""
        return self.measured / self.known - 1 if self.known else float("inf")

    @property
    def excess(self) -> float:
        """Seconds by which the data plane holds a request for longer than the server, on average (Little's law)."""
        return (self.measured - self.known) / self.rate if self.rate else float("inf")


@contextmanager
def knowing_servers(namespace: Namespace, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run servers of all protocols that know their requests."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = namespace.popen([sys.executable, str(PROGRAM), "serve", str(certificate), str(key)], stdout=-1)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield server


def compare(lab: Lab, dataplane: RunningDataplane, directory: Path, kind: str, seconds: float) -> Comparison:
    """Put a load of a kind on for so long; the laboratory has one server, and the data plane nothing else to do."""
    port = port_of(kind)
    backend = {"id": "s1", "address": lab.servers[0].ipv4, "port": port}
    wanted = vip(lab, port=port, backends=[backend], features="full")
    dataplane.apply(wanted)
    name = next(status.frames for status in dataplane.dump().vips if status.id == wanted["id"])
    reader = penstock_core.FrameReader(str(dataplane.settings.shm_dir / name.lstrip("/")))
    with knowing_servers(lab.servers[0].namespace, directory) as server:
        load = lab.client.popen([sys.executable, str(PROGRAM), "load", kind, VIP_IPV4, str(seconds)])
        turns = int(reader.read().counters["n_turn"].sum())
        frames: dict[int, int] = {}
        while load.poll() is None:
            frame = reader.read()
            frames[frame.time_us] = int(frame.counters["active_us"].sum())
            time.sleep(0.05)
        assert load.returncode == 0
        server.send_signal(signal.SIGTERM)
        told, _ = server.communicate(timeout=20)
    eventually(lambda: reader.read().counters["n_active"].sum() == 0, seconds=60)
    assert frames, "the load ended before a frame could be read"
    began = max(at for at, total in frames.items() if total == min(frames.values()))
    counted = [at for at in frames if WARM_UP_SECONDS <= (at - began) / 1e6 < seconds - TAIL_SECONDS]
    first, last = counted[0], counted[-1]
    events = json.loads(told)
    known = sum(change * (last - min(max(at, first), last)) for at, change in events)
    asked = sum(change > 0 and first <= at < last for at, change in events)
    return Comparison(
        known=known / (last - first),
        measured=(frames[last] - frames[first]) / (last - first),
        frames=len(counted),
        rate=asked / (last - first) * 1e6,
        requests=sum(change > 0 for _, change in events),
        answered=int(reader.read().counters["n_turn"].sum()) - turns,
    )
