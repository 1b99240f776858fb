"""What lives as long as the process is not looked at by each collection."""

import subprocess
import sys


def test_objects_that_exist_are_spared_and_garbage_is_not_kept() -> None:
    # In a process of its own, since a freeze cannot be taken back for these objects alone.
    program = """
import gc, weakref
from imagedex.core.long_lived import spare_long_lived_objects

class Node: pass
kept = [Node() for _ in range(1000)]
garbage = Node(); garbage.itself = garbage
seen = weakref.ref(garbage)
del garbage
spare_long_lived_objects()
assert seen() is None
assert gc.get_freeze_count() > 1000
assert not any(isinstance(o, Node) for o in gc.get_objects())
"""
    subprocess.run([sys.executable, "-c", program], check=True)
