"""Fixtures of several rooms."""

from support.fresh_processes import process_context, start_process

__all__ = ["process_context", "start_process"]
