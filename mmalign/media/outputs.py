"""What a model produced that is not text: images, sounds and arrays, as words and as the bytes of a file."""

from __future__ import annotations

import sys
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from mmalign.data.record_rows import Media, MediaType
from mmalign.errors import DataError
from mmalign.media.images import is_image
from mmalign.media.sounds import Sound

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class OutputFile:
    """A file of an output.

    Attributes:
        folder: what is appended to the name of the records for the folder of such files: `images`, `sounds`, `arrays`.
        suffix: of the file.
        type: of the row among the media of a record.
        content: its bytes.
        facts: further fields of that row.
    """

    folder: str
    suffix: str
    type: MediaType
    content: bytes
    facts: Mapping[str, Any]

    def row(self, mid: str, uri: str, sha256: str) -> Media:
        """Returns the row of a record's media that names the file."""
        return Media(mid=mid, type=self.type, uri=uri, sha256=sha256, **self.facts)


def is_text(output: Any) -> bool:
    """Returns whether an output is shown as the text of its response: it is no image, sound or array."""
    return not (is_image(output) or isinstance(output, Sound) or _is_array(output) or _is_table(output))


def describe_output(output: Any) -> str | None:
    """Words an image, sound or array on one line, by kind, size, dtype and range, never by its elements.

    Returns:
        None for other outputs, which are shown as the text of their response.
    """
    if is_image(output):
        return f"<image {output.width} x {output.height} {output.mode}>"
    if isinstance(output, Sound):
        samples = _to_numpy(output.samples)
        channels = samples.shape[1] if samples.ndim == 2 else 1
        return f"<sound {len(samples) / output.rate:.2f} s, {channels} x {output.rate} Hz>"
    if _is_table(output):
        return f"<arrays {', '.join(f'{name}: {_describe_array(value)}' for name, value in output.items())}>"
    return f"<array {_describe_array(output)}>" if _is_array(output) else None


def output_bytes(output: Any) -> bytes | None:
    """Returns what two outputs that are no texts differ in; None for a text."""
    return None if is_text(output) else encode_output(output).content


def encode_output(output: Any) -> OutputFile:
    """Writes an output that is no text as PNG, WAV of 16 bits, .npy, or .safetensors for several arrays by name.

    Raises:
        DataError: a sound whose samples are no finite numbers, [samples] or [samples, channels].
    """
    if is_image(output):
        return _encode_image(output)
    if isinstance(output, Sound):
        return _encode_sound(output)
    return _encode_table(output) if _is_table(output) else _encode_array(output)


def _is_array(output: Any) -> bool:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(output, torch.Tensor):
        return True
    return numpy is not None and isinstance(output, numpy.ndarray) and output.dtype.kind in "biufc"


def _is_table(output: Any) -> bool:
    named = isinstance(output, Mapping) and bool(output)
    return named and all(isinstance(name, str) and _is_array(value) for name, value in output.items())


def _describe_array(array: Any) -> str:
    values = _to_numpy(array)
    dtype = str(array.dtype).removeprefix("torch.")
    if not values.size or values.dtype.kind not in "biuf":
        return f"{list(values.shape)} {dtype}"
    return f"{list(values.shape)} {dtype}, {float(values.min()):.4g} to {float(values.max()):.4g}"


def _to_numpy(array: Any) -> NDArray[Any]:
    import numpy as np

    if isinstance(array, np.ndarray):
        return array
    values: Any = array.detach().cpu()
    try:
        converted: NDArray[Any] = values.numpy()
    except TypeError:  # of a dtype that numpy has not, such as bfloat16
        converted = values.float().numpy()
    return converted


def _encode_image(image: Any) -> OutputFile:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return OutputFile("images", ".png", "image", buffer.getvalue(), {"width": image.width, "height": image.height})


def _encode_sound(sound: Sound) -> OutputFile:
    import numpy as np

    samples = _to_numpy(sound.samples)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        expected = "expected finite samples, [samples] or [samples, channels]"
        raise DataError(f"a sampled sound: {expected}, got {_describe_array(sound.samples)}")
    levels = (samples.astype(np.float64).clip(-1, 1) * (2**15 - 1)).round().astype("<i2")
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(levels.shape[1] if levels.ndim == 2 else 1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(levels.tobytes())
    facts = {"seconds": len(levels) / sound.rate, "rate": sound.rate}
    return OutputFile("sounds", ".wav", "audio", buffer.getvalue(), facts)


def _encode_array(array: Any) -> OutputFile:
    import numpy as np

    buffer = BytesIO()
    np.save(buffer, _to_numpy(array), allow_pickle=False)
    return OutputFile("arrays", ".npy", "latent", buffer.getvalue(), {})


def _encode_table(arrays: Mapping[str, Any]) -> OutputFile:
    import torch
    from safetensors.torch import save

    save_all: Callable[[dict[str, torch.Tensor]], bytes] = save
    tensors = {name: torch.as_tensor(value).detach().cpu().contiguous() for name, value in arrays.items()}
    return OutputFile("arrays", ".safetensors", "latent", save_all(tensors), {})
