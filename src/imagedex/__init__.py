"""Imagedex: describe a photo, find it."""

__version__ = "0.1.0"
