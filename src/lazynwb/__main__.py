"""`python -m lazynwb`: the command line."""

import sys

from lazynwb.cli import main

if __name__ == "__main__":
    sys.exit(main())
