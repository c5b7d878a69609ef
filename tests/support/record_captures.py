"""Makes the files in tests/core/captures anew: real traffic between namespaces, and what no real end would send.

python -m tests.support.record_captures [SCENE...]      as root; default: all
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support import pcaps
from tests.support.captures import Conversation
from tests.support.feature_reference import Seen
from tests.support.scenes import SCENES, stage

FOLDER = Path(__file__).parents[1] / "core" / "captures"


def made_up() -> list[Seen]:
    """Sequence numbers and timestamps of both ends begin again at 0 in the middle of answers."""
    capture = []
    for number, server_next in enumerate((2**32 - 1, 2**32 - 250)):
        conversation = Conversation(40000 + number, client_next=2**32 - 130, server_next=server_next, clock=2**32 - 20)
        conversation.open()
        for name in ("request", "server_ack", "full_segment", "client_ack", "answer", "client_ack") * 3:
            conversation.step(name)
        conversation.step("both_fin")
        conversation.step("client_ack")
        conversation.step("server_ack")
        capture += conversation.sent
    return [Seen(10**6 + 1000 * number, *packet) for number, packet in enumerate(capture)]


def main(names: list[str]) -> None:
    """Write the files of these scenes."""
    FOLDER.mkdir(exist_ok=True)
    if not names or "made_up" in names:
        pcaps.write(FOLDER / "made_up.pcapng", made_up())
    with stage("pn-rec") as lab:
        for number, scene in enumerate(SCENES):
            if not names or scene.name in names:
                family = (4, 6)[number % 2]
                pcaps.write(FOLDER / f"{scene.name}.pcapng", scene.capture(lab, family))
                print(f"{scene.name} over IPv{family}")


if __name__ == "__main__":
    main(sys.argv[1:])
