"""`python -m redraft`, where the command itself is not on the PATH."""

import sys

from redraft.cli import main

if __name__ == "__main__":
    sys.exit(main())
