"""Trains by the configurations that are given, one after the other, in this process and those started with it."""

from __future__ import annotations

import sys

import mmalign

if __name__ == "__main__":
    for config in sys.argv[1:]:
        sys.stderr.write(f"training by {config}\n")
        mmalign.train(config)
