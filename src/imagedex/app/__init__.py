"""The composition root: settings in, wired services out.

This is the only room that picks adapters. Edges get an :class:`Application` and nothing else.
"""

from imagedex.app.application import Application, build_application
from imagedex.app.models import choose_model, decode_limits
from imagedex.app.surgery import Surgery

__all__ = ["Application", "Surgery", "build_application", "choose_model", "decode_limits"]
