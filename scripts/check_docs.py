"""Check the Markdown files: links lead somewhere, no page is lost, no path of a machine is named.

python scripts/check_docs.py  exit with 1 and a list of faults, offline
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# Where checkouts and homes of developers lie; examples name /srv, /opt, /var/lib or /home/you.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:root|tmp|workspaces?)/|(?<![\w.])/(?:home|Users)/(?!you\b)\w+"
)


def markdown_files(root: Path) -> list[Path]:
    """Return the documentation: what lies at the top, and everything below ``docs``."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")])


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as the usual renderers make them."""
    titles = HEADING.findall(CODE_BLOCK.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def faults(root: Path) -> list[str]:
    """Return what is wrong with the documentation below ``root``, as sentences."""
    files = markdown_files(root)
    found = []
    linked = {root / "README.md"}
    for file in files:
        text = file.read_text("utf-8")
        name = file.relative_to(root)
        found += [f"{name}: names {m.group()!r}." for m in MACHINE_PATH.finditer(text)]
        for target in LINK.findall(CODE_BLOCK.sub("", text)):
            if target.startswith(("https://", "http://", "mailto:")):
                continue  # Not looked up: the check must work offline and never flicker.
            path_part, _, anchor = target.partition("#")
            path = (file.parent / path_part).resolve() if path_part else file
            if not path.exists():
                found.append(f"{name}: the link {target!r} leads nowhere.")
            elif anchor and anchor not in anchors(path.read_text("utf-8")):
                found.append(f"{name}: there is no heading for the link {target!r}.")
            else:
                linked.add(path)
    found += [
        f"{file.relative_to(root)}: no page links to it." for file in files if file not in linked
    ]
    return found


def main() -> None:
    """Run the command line."""
    found = faults(ROOT)
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
