"""`python -m accelserve`: the same as the `accelserve` command."""

import sys

from accelserve.cli import main

if __name__ == "__main__":
    sys.exit(main())
