"""``imagedex models``: a module for each of its commands."""

from imagedex.cli.commands.models.group import models

__all__ = ["models"]
