"""Index files that contradict each other though all checksums are right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from imagedex.segments import FileEntry


def forge(index_prefix: Path, faiss: FileEntry) -> None:
    """Change the last number of a search structure's last vector, and let it be expected.

    The current manifest must list it.
    """
    path = index_prefix / faiss.name
    data = bytearray(path.read_bytes())
    data[-4:] = b"\x00\x00\x00\x40"
    path.unlink()
    path.write_bytes(data)
    pointer = index_prefix / "CURRENT"
    document = json.loads(pointer.read_text())
    manifest = index_prefix / document["manifest"]
    text = manifest.read_text()
    assert faiss.sha256 in text
    manifest.write_text(text.replace(faiss.sha256, hashlib.sha256(data).hexdigest()))
    document["sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    pointer.write_text(json.dumps(document))
