"""`python -m mmalign`, the same as the command `mmalign`."""

from mmalign.cli.main import main

main()
