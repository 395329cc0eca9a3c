"""What import strings such as `"package.module:attribute"` name, and how code of plugins is imported.

Only `plugin_code` may catch every exception: plugins can raise anything.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmalign.errors import PluginError, suggest


def load_object(path: str) -> Any:
    """Loads what an import string such as `"package.module:attribute"` names.

    >>> load_object("mmalign.errors:PluginError").__name__
    'PluginError'

    Raises:
        PluginError: the string has another form, the module does not import, or has no such attribute.
    """
    module_name, separator, attribute = path.partition(":")
    if not (module_name and separator and attribute):
        raise PluginError(f"import string {path!r}: expected 'package.module:attribute'")
    with plugin_code(f"import string {path!r}: import failed"):
        found = importlib.import_module(module_name)
    for name in attribute.split("."):
        if not hasattr(found, name):
            own = [key for key, value in vars(found).items() if getattr(value, "__module__", "") == module_name]
            raise PluginError(f"import string {path!r}: {module_name!r} has no {name!r}{suggest(name, own)}")
        found = getattr(found, name)
    return found


@contextmanager
def plugin_code(action: str) -> Iterator[None]:
    """Turns whatever plugin code raises, `SystemExit` included, into a PluginError that says where it was raised."""
    try:
        yield
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{action}: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    # The last line that ran outside the import system is the plugin's own more often than not.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"
