"""`python -m mmalign`, the same as the command `mmalign`."""

import os
import sys

# Python puts the current folder first; what lies there must not run as a plugin, nor in the place of a library.
if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from mmalign.cli.main import main

main()
