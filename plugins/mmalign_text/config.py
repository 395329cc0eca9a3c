"""Keys of the text modality."""

from __future__ import annotations

from mmalign import LanguageParameters


class TextConfig(LanguageParameters):
    """A causal language model and how records become its tokens."""

    model: str
    """Hub id, local folder, `.gguf` file, or `package:NAME/FILE`, a file inside an installed Python package."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer; default the model's own."""
