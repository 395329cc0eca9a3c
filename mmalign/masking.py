"""Secrets are shown as `***`: in every file of a run, every log line and every error message.

Masked are passwords and signatures in addresses, keys in headers and of well-known forms, values under names such as
`api_key`, and the values of secrets that came from the environment: those that were read by the name in `api_key_env`,
and every variable whose own name says that it is one (`WANDB_API_KEY`, `HF_TOKEN`). A key belongs into the environment;
what stands in a configuration is masked where it is written, so that the file that is left does not hold it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_SHORTEST = 6
"""Characters of a value from the environment that is masked wherever it occurs; a shorter one would hit plain words."""
_NAMES = (
    r"(?:api|access|auth|private|secret|session|subscription)[-_]?key|(?:access|auth|api|bearer|refresh|session|hf)[-_]?"
    r"token|secret|passw(?:or)?d|passphrase|pwd|authorization|credentials?"
)
_SECRET_KEY = re.compile(rf"(?:^|.*[-_.])(?:{_NAMES})$|^token$", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:^|.*_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_PATTERNS = (
    # user:password@host
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@'\"]+@", re.IGNORECASE), rf"\g<1>{MASK}@"),
    # ?api_key=...&X-Amz-Signature=...
    (
        re.compile(
            r"([?&#;][\w.~%-]*(?:key|token|secret|passw|pwd|sig|signature|auth|credential|code)[\w.~%-]*=)[^&;\s\"'#<>)]+",
            re.IGNORECASE,
        ),
        rf"\g<1>{MASK}",
    ),
    # Authorization: Bearer ..., as text or in a dumped mapping
    (re.compile(r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{8,}"), rf"\g<1>{MASK}"),
    # api_key=..., "password": "..."
    (
        re.compile(
            rf"((?<![a-z0-9])(?:{_NAMES})(?:['\"]\s*:\s*|\s*=\s*)['\"]?)(?!\*\*\*)[^\s'\",;&}}\])]+", re.IGNORECASE
        ),
        rf"\g<1>{MASK}",
    ),
    # Forms of well-known services, and JSON web tokens
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
            r"|xox[abeprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[\w-]{30,}"
            r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
        ),
        MASK,
    ),
)
_remembered: set[str] = set()


def remember_secret(value: str) -> None:
    """Makes a secret known that was read from somewhere; it is masked from then on."""
    if len(value) >= _SHORTEST:
        _remembered.add(value)


def mask_text(text: str) -> str:
    """Masks the secrets in a text.

    >>> mask_text("http://me:word@host/score?key=abc&n=2")
    'http://***@host/score?key=***&n=2'
    """
    for value in sorted(_remembered | _secrets_of_environment(), key=len, reverse=True):
        text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def mask_values(value: Any, key: str = "") -> Any:
    """Masks the secrets in JSON values: in texts, and whole values under names of secrets.

    >>> mask_values({"api_key": "abc", "api_key_env": "MY_KEY", "n": 2})
    {'api_key': '***', 'api_key_env': 'MY_KEY', 'n': 2}
    """
    if isinstance(value, Mapping):
        return {name: mask_values(one, str(name)) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_values(one, key) for one in value]
    if not isinstance(value, str):
        return value
    return MASK if value and _SECRET_KEY.match(key) else mask_text(value)


def mask_logs() -> None:
    """Masks what modules of mmalign and its plugins log from now on; calling it again changes nothing."""
    factory = logging.getLogRecordFactory()
    if getattr(factory, "masks", False):
        return

    def build(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = factory(*arguments, **options)
        if record.name.startswith("mmalign"):
            record.msg, record.args = mask_text(record.getMessage()), None
        return record

    build.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(build)


def _secrets_of_environment() -> set[str]:
    # A file's path is no secret, and masked it would make every message about its folder unreadable.
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and not value.startswith("/") and _VARIABLE.match(name)
    }
