"""Checks that every relative link and anchor in the project's Markdown files leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub derives from a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in HEADING.findall(FENCE.sub("", text))
    }


def broken_links(page: Path) -> list[str]:
    """Return one message per link of the page that leads nowhere."""
    problems = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        destination = (page.parent / path) if path else page
        if not destination.exists():
            problems.append(f"{page}: {target}: no such file")
        elif anchor and destination.suffix == ".md" and anchor not in anchors(destination.read_text()):
            problems.append(f"{page}: {target}: no such heading")
    return problems


def main() -> int:
    """Print every broken link; 1 if there is one."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    pages = [Path(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
    problems = [problem for page in pages if page.exists() for problem in broken_links(page)]
    print("\n".join(problems) if problems else f"{len(pages)} pages, all links lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
