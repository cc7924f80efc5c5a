"""``python -m semdpo``: the same as ``semdpo``."""

from semdpo.cli import main

if __name__ == "__main__":
    main()
