"""Makes the preference pairs of the digit recipes: the embedded model's own samples, best against worst by reward.

    python studies/digit_pairs.py           # minutes on two CPU cores

`mmalign generate` with `--pairs 1` does so, too, with a PNG file for every image. Here the images go into the lines of
`configs/diffusion/data/pairs_*.jsonl`, so that the recipes run as they are shipped. Of the held-out prompts the first
200 get a pair; the others are there to be sampled.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

import mmalign
from mmalign.config.data import DataConfig
from mmalign.data.records import Media, Message, Part, Record
from mmalign.run import Run
from mmalign.sources.source import open_source
from mmalign.training.feedback import Sampled, sample_outputs

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/diffusion/diffusion_dpo.yaml"
DATA = ROOT / "configs/diffusion/data"
COUNT = 4
PAIRED = 200


def embed(sampled: Sampled) -> Record:
    """Puts the images of a record into it, as `data:` URIs; what made them is the same for all and left out."""
    media, responses = [], []
    for response in sampled.record.responses:
        media.append(Media(mid=response.rid, type="image", uri=_encode(sampled.outputs[response.rid])))
        content = (Part(type="image", media=response.rid),)
        message = Message(role="assistant", content=content)
        responses.append(response.model_copy(update={"messages": (message,), "model": None, "params": None}))
    scores = tuple(score for score in sampled.record.scores if score.name == "reward")
    return sampled.record.model_copy(update={"media": tuple(media), "responses": tuple(responses), "scores": scores})


def _encode(image: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def write(run: Run, name: str, paired: int | None = None) -> None:
    """Writes the pairs of the prompts of `prompts_NAME.jsonl`; those after the first `paired` stay prompts."""
    prompts = list(open_source(DataConfig(path=str(DATA / f"prompts_{name}.jsonl"))))
    set_seed(20_240_001 if name == "train" else 20_240_002)
    records: Iterable[Record] = map(embed, sample_outputs(run, prompts[:paired], count=COUNT, pairs=1, chunk=40))
    lines = [record.to_json() for record in records]
    lines += [record.to_json() for record in prompts[paired:]] if paired else []
    (DATA / f"pairs_{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main() -> int:
    """Writes both files. The recipe's own data are not opened: they are what is being made."""
    overrides = {"data.eval": None, "decoding.max_steps": 10}
    run = mmalign.load_run(CONFIG, overrides)
    write(run, "train")
    write(run, "heldout", PAIRED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
