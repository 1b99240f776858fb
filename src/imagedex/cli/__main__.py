"""``python -m imagedex.cli`` is the same as ``imagedex``."""

from imagedex.cli.program import main

main()
