"""The command line. Importing it loads nothing heavy, so that ``--help`` is quick."""

from imagedex.cli.program import main

__all__ = ["main"]
