"""`python -m rbs.cli`: the command line."""

import sys

from rbs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
