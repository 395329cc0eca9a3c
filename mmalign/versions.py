"""Versions of the packages that decide what a run computes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("mmalign", "torch", "transformers", "diffusers", "accelerate", "peft", "datasets")


def installed_versions() -> dict[str, str]:
    """Returns the versions of those of the packages that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
