"""`optoutd`, or `python -m daemon`."""

import sys


def main() -> None:
    """Run the command line and leave with the contract's exit code."""
    from daemon.cli import invoke

    sys.exit(invoke(sys.argv[1:]))


if __name__ == "__main__":
    main()
