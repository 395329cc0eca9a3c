"""What makes two samples equal: the content that a reward can see, as a digest."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from mmalign.contract.values import Sample


def content_key(sample: Sample) -> bytes | None:
    """Digests everything that a reward can see of a sample; None where the decoded output has no bytes to compare."""
    content = _output_bytes(sample.output)
    if content is None:
        return None
    # The whole record but its responses: a reward may read the media, a gold answer in the metadata, or the id.
    context = sample.record.with_responses([]).to_json()
    response = sample.response.model_dump_json(exclude={"rid"})
    digest = hashlib.sha256()
    for piece in (context.encode(), response.encode(), str(sample.steps).encode(), content):
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.digest()


def _output_bytes(output: Any) -> bytes | None:
    if isinstance(output, str):
        return output.encode("utf-8", "surrogatepass")
    if isinstance(output, Tensor):
        content = output.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif hasattr(output, "tobytes") and not _holds_objects(output):  # arrays and PIL images
        try:
            content = bytes(output.tobytes()) + _palette_bytes(output)
        except (OSError, SyntaxError, EOFError):  # an image whose file cannot be read to its end
            return None
    else:
        return None
    layout = ("dtype", "shape") if hasattr(output, "dtype") else ("mode", "size")
    return "|".join(str(getattr(output, name, "")) for name in layout).encode() + content


def _palette_bytes(output: Any) -> bytes:
    # The pixels of an image with a palette are indices into it.
    palette = output.getpalette("RGBA") if getattr(output, "mode", "") in ("P", "PA") else None
    return bytes(palette or ())


def _holds_objects(output: Any) -> bool:
    # The bytes of an array of Python objects are their addresses.
    return bool(getattr(getattr(output, "dtype", None), "hasobject", False))
