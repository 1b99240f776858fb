"""Fixtures of several rooms."""

from support.fresh_processes import process_context, start_process
from support.small_disk import small_disk

__all__ = ["process_context", "small_disk", "start_process"]
