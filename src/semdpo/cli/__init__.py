"""The command line: one thin file a command; whatever is heavy is imported when it is needed."""

from semdpo.cli.app import main

__all__ = ["main"]
