"""Ids, records, errors and numerics that every room shares. Nothing here does I/O."""
