"""Checks what can be checked of the documentation, and of what comments and messages refer to.

Links and anchors; files and folders named in Markdown and in comments of C; targets of make; options of `penstock`;
constants of C.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
C_FILE = re.compile(r"(?<![\w/.<*-])([a-z][a-z0-9_]*\.[ch])\b(?!\()")
MAKE = re.compile(r"(?:^|[`(\s])make ([a-z][a-z-]*)\b(?!:)")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
CONSTANT = re.compile(r"\bLBRL_[A-Z0-9_]+\b")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
COMMAND = re.compile(r"(?<!install )(?<!upgrade )(?<![\w/-])penstock ([a-z][^`|\n]*)")
GENERATED_OPTIONS = Path("docs/reference/cli.md")
# Headers and programs of others that comments name.
FOREIGN = frozenset({"vlib.h", "vnet.h", "buffer.h", "stdatomic.h", "assert.h", "main.c", "lb.c", "node.c"})


@dataclass(frozen=True)
class Tree:
    """What the repository has, for pages to refer to."""

    files: frozenset[str]

    @classmethod
    def here(cls) -> "Tree":
        """List the files that git has or would take."""
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return cls(frozenset(path for path in listed if Path(path).exists()))

    def of_type(self, *endings: str) -> list[Path]:
        """Return files by the ends of their names."""
        return [Path(path) for path in sorted(self.files) if path.endswith(endings)]

    @property
    def folders(self) -> frozenset[str]:
        """All folders that have a file somewhere."""
        return frozenset(str(parent) for path in self.files for parent in Path(path).parents)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub derives from a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in HEADING.findall(FENCE.sub("", text))
    }


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield each link of the page that leads nowhere."""
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        destination = (page.parent / path) if path else page
        if not destination.exists():
            yield f"{target}: no such file"
        elif anchor and destination.suffix == ".md" and anchor not in anchors(destination.read_text()):
            yield f"{target}: no such heading"


def missing_files(page: Path, text: str, tree: Tree) -> Iterator[str]:
    """Yield paths in code spans that begin like one of ours and lead nowhere."""
    tops = {path.partition("/")[0] for path in tree.files if "/" in path} - {"build"}
    for span in SPAN.findall(FENCE.sub("", text)):
        path = span.rstrip("/")
        top, slash, _ = path.partition("/")
        if not slash or top not in tops or not re.fullmatch(r"[\w./-]+", path):
            continue
        if not any((base / path).exists() for base in (Path(), page.parent)):
            yield f"`{span}`: no such file or folder"


def unknown_targets(text: str, makefile: str) -> Iterator[str]:
    """Yield targets of make that the Makefile does not have."""
    known = set(TARGET.findall(makefile))
    for target in MAKE.findall(text):
        if target not in known and f"`make {target}`" in text:
            yield f"`make {target}`: no such target"


def unknown_options(text: str, known: set[str]) -> Iterator[str]:
    """Yield options in command lines of `penstock` that it does not have."""
    for command in COMMAND.findall(text):
        for option in OPTION.findall(command.partition("#")[0]):
            if option not in known:
                yield f"penstock {command.strip()}: no option {option}"


def unknown_constants(text: str, known: set[str]) -> Iterator[str]:
    """Yield names of C constants that no header defines."""
    yield from (f"{name}: no such constant" for name in CONSTANT.findall(text) if name not in known)


def unknown_sources(text: str, tree: Tree) -> Iterator[str]:
    """Yield C files that comments name and that are not there."""
    names = {Path(path).name for path in tree.files} | FOREIGN
    for comment in COMMENT.findall(text):
        yield from (f"comment names {name}: no such file" for name in C_FILE.findall(comment) if name not in names)


def page_problems(page: Path, tree: Tree, makefile: str, options: set[str], constants: set[str]) -> Iterator[str]:
    """Yield all that is wrong with one page."""
    text = page.read_text()
    yield from broken_links(page, text)
    yield from missing_files(page, text, tree)
    yield from unknown_targets(text, makefile)
    yield from unknown_options(text, options)
    yield from unknown_constants(text, constants)


def problems(tree: Tree) -> Iterator[str]:
    """Yield one message per reference that leads nowhere."""
    makefile = Path("Makefile").read_text()
    options = set(OPTION.findall(GENERATED_OPTIONS.read_text())) | {"--help"}
    constants = set(_constants(tree.of_type(".h", ".c")))
    for page in tree.of_type(".md"):
        yield from (f"{page}: {found}" for found in page_problems(page, tree, makefile, options, constants))
    for source in tree.of_type(".c", ".h", ".cpp"):
        yield from (f"{source}: {found}" for found in unknown_sources(source.read_text(), tree))
    for source in tree.of_type(".py"):
        if not source.is_relative_to("tests"):
            yield from (f"{source}: {found}" for found in unknown_options(source.read_text(), options))


def _constants(headers: Iterable[Path]) -> Iterator[str]:
    for header in headers:
        yield from CONSTANT.findall(COMMENT.sub("", header.read_text()))


def main() -> int:
    """Print every problem; 1 if there is one."""
    tree = Tree.here()
    found = list(problems(tree))
    print("\n".join(found) if found else f"{len(tree.of_type('.md'))} pages: all references lead somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
