"""The command line: one thin file for each command, which imports heavy libraries only when it runs."""

from semdpo.cli.app import main

__all__ = ["main"]
