"""`python -m vlmkit` is `vlmkit`."""

import sys

from vlmkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
