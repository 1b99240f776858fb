"""Fixtures of several rooms."""

from support.fresh_processes import process_context, ready_decoders, ready_programs, start_process
from support.small_disk import small_disk

__all__ = ["process_context", "ready_decoders", "ready_programs", "small_disk", "start_process"]
