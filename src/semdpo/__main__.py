"""``semdpo`` and ``python -m semdpo``: the command line."""

import sys


def main() -> None:
    """Runs the command that the user typed; Ctrl-C ends it without a traceback, even while it is imported."""
    try:
        from semdpo import cli
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
