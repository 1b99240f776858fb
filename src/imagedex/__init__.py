"""Imagedex: describe a photo, find it."""

from importlib.metadata import version

__version__ = version("imagedex")
