"""Pick-a-Pic v2 as records: the pairs that the Stable Diffusion recipes here train on, ties left out.

    python configs/diffusion/pickapic.py --output data/pickapic --limit 10000
    python configs/diffusion/pickapic.py --output data/pickapic --scores       # PickScores too, for SmPO; wants a GPU
    python configs/diffusion/pickapic.py --output data/pickapic --split validation_unique

The whole training split has 851,293 pairs without ties, several hundred GB. Images are written as they come, beside
`train.jsonl`; the file is begun anew by every call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from mmalign import Record

DATASET = "yuvalkirstain/pickapic_v2"
PICK_SCORE, PROCESSOR = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def build_record(row: Mapping[str, Any], folder: Path) -> Record | None:
    """Writes both images of a row to `folder/images` and returns its record; None for a tie.

    The responses are r0 and r1, as in the row; the pair says which one was preferred.
    """
    if row["label_0"] == row["label_1"]:
        return None
    uids = [row["image_0_uid"], row["image_1_uid"]]
    for uid, content in zip(uids, (row["jpg_0"], row["jpg_1"]), strict=True):
        file = folder / "images" / f"{uid}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    better = int(row["label_1"] > row["label_0"])
    return Record.from_dict(
        {
            "id": str(row["ranking_id"]),
            "prompt": [{"role": "user", "content": [{"type": "text", "text": row["caption"]}]}],
            "responses": [
                {"rid": f"r{index}", "messages": [{"role": "assistant", "content": [{"type": "image", "media": uid}]}]}
                for index, uid in enumerate(uids)
            ],
            "labels": [{"kind": "pair", "order": [[f"r{better}"], [f"r{1 - better}"]], "user": str(row["user_id"])}],
            "media": [{"mid": uid, "type": "image", "uri": f"images/{uid}.jpg"} for uid in dict.fromkeys(uids)],
        }
    )


def iter_records(rows: Iterable[Mapping[str, Any]], folder: Path, scorer: PickScorer | None) -> Iterator[Record]:
    """Yields the records of all rows without ties, with scores if there is a scorer."""
    for row in rows:
        record = build_record(row, folder)
        if record is not None and scorer is not None:
            values = scorer.score(row["caption"], [row["jpg_0"], row["jpg_1"]])
            scores = [
                {"item": f"r{index}", "name": "pick_score", "level": "response", "value": value}
                for index, value in enumerate(values)
            ]
            record = Record.from_dict({**record.to_dict(), "scores": scores})
        if record is not None:
            yield record


class PickScorer:
    """PickScore without its logit scale: the cosine of prompt and image (arXiv:2305.01569), as SmPO reads it."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModel, AutoProcessor

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor: Any = AutoProcessor.from_pretrained(PROCESSOR)
        self._model: Any = AutoModel.from_pretrained(PICK_SCORE).eval().to(self._device)

    def score(self, caption: str, images: Sequence[bytes]) -> list[float]:
        """Scores the encoded images against their prompt."""
        import torch
        from PIL import Image

        pictures = [Image.open(BytesIO(content)).convert("RGB") for content in images]
        inputs = self._processor(
            text=[caption], images=pictures, padding=True, truncation=True, max_length=77, return_tensors="pt"
        ).to(self._device)
        with torch.no_grad():
            output = self._model(**inputs)
        # CLIP returns its embeddings normalised.
        cosines: list[float] = (output.image_embeds @ output.text_embeds.T)[:, 0].tolist()
        return cosines


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes `SPLIT.jsonl` and the images."""
    from datasets import load_dataset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder that is written")
    parser.add_argument("--split", default="train")
    parser.add_argument("--limit", type=int, help="only the first so many pairs")
    parser.add_argument("--scores", action="store_true", help="also store the PickScore of every image")
    options = parser.parse_args(arguments)
    rows = load_dataset(DATASET, split=options.split, streaming=True)
    options.output.mkdir(parents=True, exist_ok=True)
    records = iter_records(rows, options.output, PickScorer() if options.scores else None)
    with (options.output / f"{options.split}.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(f"{record.to_json()}\n" for record in islice(records, options.limit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
