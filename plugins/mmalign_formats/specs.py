"""What every format says of itself; imports none of them."""

from __future__ import annotations

from mmalign import FileFormatSpec, LayoutSpec

MEDIA = ("images", "image", "videos", "video", "audios", "audio")
SHARED = ("tools", "chat_template_kwargs", *MEDIA)
_SIDES = ("chosen", "rejected")


def _with_compressed(suffix: str) -> tuple[str, ...]:
    return (suffix, f"{suffix}.gz", f"{suffix}.zst")


FILE_FORMATS = [
    FileFormatSpec(
        name="jsonl",
        summary="JSON Lines: one JSON object a line, plain, gzipped or zstd.",
        target="mmalign_formats.lines:JsonLines",
        suffixes=(*_with_compressed(".jsonl"), *_with_compressed(".ndjson")),
        writes=True,
    ),
    FileFormatSpec(
        name="json",
        summary="A JSON array of objects, or objects one after the other.",
        target="mmalign_formats.arrays:JsonArray",
        suffixes=_with_compressed(".json"),
        writes=True,
    ),
    FileFormatSpec(
        name="csv",
        summary="Columns of text with their names in the first line; nested values as JSON in a cell.",
        target="mmalign_formats.delimited:Delimited",
        config="mmalign_formats.delimited:CsvConfig",
        suffixes=_with_compressed(".csv"),
        writes=True,
    ),
    FileFormatSpec(
        name="tsv",
        summary="Like csv, with tabs between the cells.",
        target="mmalign_formats.delimited:Delimited",
        config="mmalign_formats.delimited:TsvConfig",
        suffixes=_with_compressed(".tsv"),
        writes=True,
    ),
    FileFormatSpec(
        name="parquet",
        summary="A Parquet table.",
        target="mmalign_formats.tables:Parquet",
        suffixes=(".parquet",),
        writes=True,
    ),
    FileFormatSpec(
        name="arrow",
        summary="An Arrow table: a file (Feather) or a stream.",
        target="mmalign_formats.tables:ArrowTable",
        suffixes=(".arrow", ".feather"),
        writes=True,
    ),
    FileFormatSpec(
        name="datasets",
        summary="A folder that `save_to_disk` of Hugging Face datasets made.",
        target="mmalign_formats.hosted:SavedDataset",
        source="folder",
        writes=True,
    ),
    FileFormatSpec(
        name="hub",
        summary="A data set of the Hugging Face hub, by its name `owner/name`.",
        target="mmalign_formats.hosted:HubDataset",
        source="hub",
    ),
    FileFormatSpec(
        name="webdataset",
        summary="A tar file whose members of one name are a row, images and sounds inside.",
        target="mmalign_formats.tars:WebDataset",
        suffixes=_with_compressed(".tar"),
        writes=True,
    ),
    FileFormatSpec(
        name="image_folder",
        summary="A folder of images, with metadata.csv, metadata.jsonl or text files beside them.",
        target="mmalign_formats.image_folder:ImageFolder",
        source="folder",
    ),
]

LAYOUTS = [
    LayoutSpec(
        name="mmalign",
        summary="Records, as mmalign writes them.",
        target="mmalign_formats.records:RecordLayout",
        columns=(("schema",), ("responses",)),
        whole=True,
        writes=True,
    ),
    LayoutSpec(
        name="trl",
        summary="The columns of TRL's trainers: preferences, completions, verdicts, steps, prompts.",
        target="mmalign_formats.trl:Trl",
        config="mmalign_formats.trl:TrlConfig",
        columns=(
            ("prompt", *_SIDES),
            _SIDES,
            ("prompt", "completion"),
            ("prompt", "completion", "label"),
            ("prompt", "completions", "labels"),
            ("messages",),
            ("prompt",),
            ("text",),
        ),
        optional=("system", "margin", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="openai",
        summary="OpenAI's conversations with tools, and its preferences of two outputs.",
        target="mmalign_formats.openai:OpenAI",
        columns=(("messages",), ("input", "preferred_output", "non_preferred_output")),
        optional=("system", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="sharegpt",
        summary="ShareGPT's conversations of messages with `from` and `value`.",
        target="mmalign_formats.sharegpt:ShareGPT",
        columns=(("conversations",), ("conversation",)),
        optional=("system", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="alpaca",
        summary="Alpaca's instructions with an output.",
        target="mmalign_formats.alpaca:Alpaca",
        columns=(("instruction", "output"),),
        optional=("input", "system", "history", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="llama_factory",
        summary="Preferences and verdicts of LLaMA-Factory, in ShareGPT's or Alpaca's columns.",
        target="mmalign_formats.llama_factory:LlamaFactory",
        columns=(
            ("conversations", *_SIDES),
            ("instruction", *_SIDES),
            ("conversations", "kto_tag"),
            ("instruction", "output", "kto_tag"),
        ),
        optional=("input", "system", "history", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="ms_swift",
        summary="ms-swift's conversations with a rejected response or a label, and its queries with a response.",
        target="mmalign_formats.ms_swift:MsSwift",
        columns=(
            ("messages", "rejected_response"),
            ("messages", "rejected_messages"),
            ("messages", "label"),
            ("query", "response"),
            ("messages",),
        ),
        optional=("system", "history", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="hh_rlhf",
        summary="HH-RLHF's pairs of dialogues, strings with Human: and Assistant: before the turns.",
        target="mmalign_formats.hh_rlhf:HhRlhf",
        columns=(_SIDES,),
        writes=True,
    ),
    LayoutSpec(
        name="rlaif_v",
        summary="A question with a better and a worse answer: RLAIF-V's with an image, Orca's with a system message.",
        target="mmalign_formats.questions:Questions",
        columns=(("question", *_SIDES, "image"), ("question", *_SIDES)),
        optional=("system", *SHARED),
        writes=True,
    ),
    LayoutSpec(
        name="ultrafeedback",
        summary="UltraFeedback: rated completions of an instruction, or pairs with the scores of both sides.",
        target="mmalign_formats.ultrafeedback:UltraFeedback",
        columns=(
            ("instruction", "completions"),
            ("prompt", *_SIDES, "score_chosen", "score_rejected"),
            ("prompt", *_SIDES, "chosen-rating", "rejected-rating"),
        ),
        optional=("system", "messages", "chosen-model", "rejected-model"),
        writes=True,
    ),
    LayoutSpec(
        name="pick_a_pic",
        summary="Pick-a-Pic: two images of a caption, and which of them people prefer.",
        target="mmalign_formats.pictures:PickAPic",
        columns=(("caption", "jpg_0", "jpg_1", "label_0"),),
        optional=("label_1", "has_label", "model_0", "model_1"),
        writes=True,
    ),
    LayoutSpec(
        name="captioned_images",
        summary="Images with a caption each, for image models or for models that see.",
        target="mmalign_formats.pictures:CaptionedImages",
        config="mmalign_formats.pictures:CaptionConfig",
        columns=tuple((image, text) for image in ("image", "jpg", "png") for text in ("caption", "text", "txt")),
        writes=True,
    ),
]
