"""Data files with something wrong: made from good ones by fixed seeds, the same on every machine."""

from __future__ import annotations

import csv
import decimal
import gzip
import io
import json
import random
import tarfile
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import parquet

Row = dict[str, Any]

TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SPOKEN = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
RECORD = {
    "id": "r",
    "schema": "mmalign/1",
    "prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
    "responses": [
        {"rid": f"r{index}", "messages": [{"role": "assistant", "content": [{"type": "text", "text": text}]}]}
        for index, text in enumerate("ab")
    ],
    "scores": [{"item": "r0", "name": "s", "level": "response", "value": 1.0}],
    "labels": [{"kind": "pair", "order": [["r0"], ["r1"]], "strength": 0.5}],
    "meta": '{"gold": 1}',
}
GOOD: list[Row] = [
    RECORD,
    {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.0, "system": "s"},
    {"prompt": TURNS[:2], "completion": TURNS[2:], "label": True},
    {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
    {"messages": TURNS, "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"conversations": SPOKEN, "images": ["a.png"]},
    {"conversations": SPOKEN[:1], "chosen": SPOKEN[1], "rejected": SPOKEN[1]},
    {"instruction": "q", "input": "x", "output": "a", "history": [["p", "r"]]},
    {"messages": TURNS, "rejected_response": "b"},
    {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    {"question": "q", "chosen": "a", "rejected": "b", "image": "a.png"},
    {"instruction": "q", "completions": [{"response": "a", "model": "m", "overall_score": 7.5}]},
    {"caption": "c", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 1.0},
    {"image": "a.png", "caption": "c"},
]
STRANGE: list[Any] = [
    *(None, True, -1, 0.5, 1e308, float("nan"), float("inf"), 10**400),
    *("", " ", "\x00", "\ud800", "\u202e", "x" * 5000, "<image>", "r0@v1", "node:n1"),
    *("[{", '{"a": "\\udc00"}', '{"a": NaN}'),
    *([], {}, [[]], [None], {"a": None}, {"role": "user"}, {"role": 3, "content": 4}, [{"role": "user"}]),
    *([{"from": "gpt", "value": None}], {"bytes": "x"}, {"": ""}, [{"type": "image"}], [["r0"], ["r0"]]),
]


def deep(levels: int) -> Any:
    """Returns lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def mutate(value: Any, rng: random.Random) -> Any:
    """Returns `value` with one place in it changed: a key dropped or renamed, a value replaced, doubled or swapped."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(5)
        if kind == 0:
            return {name: one for name, one in value.items() if name != key}
        if kind == 1:
            return {(name + rng.choice("sx_") if name == key else name): one for name, one in value.items()}
        if kind == 2:
            other = rng.choice(list(value))
            return {**value, key: value[other], other: value[key]}
        return {**value, key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        if rng.random() < 0.3:
            return value[:place] + value[place + 1 :] if rng.random() < 0.5 else [*value, value[place]]
        return [*value[:place], mutate(value[place], rng), *value[place + 1 :]]
    return deep(rng.choice((50, 900, 5000))) if rng.random() < 0.05 else rng.choice(STRANGE)


def dump(value: Any) -> bytes:
    """Writes JSON, whatever is in it; what is nested too deeply for Python by hand."""
    try:
        return json.dumps(value, ensure_ascii=True).encode()
    except (RecursionError, ValueError):
        return b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}"


def build_rows(rng: random.Random) -> list[Row]:
    """Returns a few rows, some of them changed."""
    rows = [dict(rng.choice(GOOD)) for _ in range(rng.randint(1, 4))]
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(rows))
        rows[place] = mutate(rows[place], rng)
    return rows


def damage(content: bytes, rng: random.Random) -> bytes:
    """Cuts a file, changes single bytes, or puts others between them."""
    kind = rng.randrange(4)
    place = rng.randrange(max(1, len(content)))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 9))) + content[place:]
    changed = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# -- files ------------------------------------------------------------------------------------------------------------


def build_lines(rows: list[Row], rng: random.Random) -> bytes:
    """JSON Lines."""
    return rng.choice((b"\n", b"\r\n", b"\n\n")).join(map(dump, rows))


def build_array(rows: list[Row], rng: random.Random) -> bytes:
    """A JSON array."""
    return b"[" + b",".join(map(dump, rows)) + rng.choice((b"]", b"", b",]", b"]]"))


def build_csv(rows: list[Row], rng: random.Random) -> bytes:
    """CSV, nested values as JSON."""
    target = io.StringIO()
    named = [row if isinstance(row, dict) else {"prompt": row} for row in rows]
    writer = csv.writer(target)
    names = list(dict.fromkeys(name for row in named for name in row))
    writer.writerow(names)
    for row in named:
        cells = [row.get(name) for name in names]
        writer.writerow(
            [one if isinstance(one, str) else dump(one).decode() for one in cells][: len(names) + rng.randint(-1, 0)]
        )
    return target.getvalue().encode("utf-8", "surrogatepass")


def build_tar(rows: list[Row], rng: random.Random) -> bytes:
    """A tar of rows, some with media beside them."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for index, row in enumerate(rows):
            members = {
                f"{index}.json": dump(row),
                f"{index}.{rng.choice(('jpg', 'txt', 'cls', 'x.json', ''))}": rng.randbytes(9),
            }
            for name, content in members.items():
                described = tarfile.TarInfo(name)
                described.size = len(content)
                archive.addfile(described, io.BytesIO(content))
    return target.getvalue()


def build_parquet(rows: list[Row], rng: random.Random) -> bytes:
    """A Parquet table, one of whose columns holds values that are strange for it."""
    columns: dict[str, Any] = {"prompt": pyarrow.array(["q", "r"]), "chosen": pyarrow.array(["a", "b"])}
    columns["rejected"] = pyarrow.array(["x", "y"])
    columns[rng.choice(("prompt", "chosen", "gold", "margin", "id", "images", "system"))] = rng.choice(_COLUMNS)()
    target = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), target)
    return target.getvalue()


def _array(values: list[Any], kind: Any) -> Callable[[], Any]:
    return lambda: pyarrow.array(values, kind)


_COLUMNS: list[Callable[[], Any]] = [
    _array([2**40, 1], pyarrow.timestamp("s")),
    _array([-(2**62), 1], pyarrow.timestamp("us", tz="UTC")),
    _array([2**30, 0], pyarrow.date32()),
    _array([2**62, 0], pyarrow.duration("s")),
    _array([b"\xff\xfe", b""], pyarrow.binary()),
    _array([decimal.Decimal("1e30"), None], pyarrow.decimal256(60, 2)),
    _array([2**64 - 1, 0], pyarrow.uint64()),
    _array([float("nan"), float("inf")], pyarrow.float64()),
    _array([[{"a": [1, None]}], None], pyarrow.list_(pyarrow.struct([("a", pyarrow.list_(pyarrow.int64()))]))),
    _array([[("k", 1), ("k", 2)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    lambda: pyarrow.array(["q", "r"]).dictionary_encode(),
    _array([None, None], pyarrow.null()),
]
BUILDERS: dict[str, Callable[[list[Row], random.Random], bytes]] = {
    "jsonl": build_lines,
    "jsonl.gz": lambda rows, rng: gzip.compress(build_lines(rows, rng)),
    "json": build_array,
    "csv": build_csv,
    "tar": build_tar,
    "parquet": build_parquet,
}


def build_file(seed: int) -> tuple[str, bytes]:
    """Returns the ending of a file's name and what is in it; a third of the files is damaged as bytes, too."""
    rng = random.Random(seed)
    ending = rng.choice(list(BUILDERS))
    content = BUILDERS[ending](build_rows(rng), rng)
    return ending, damage(content, rng) if rng.random() < 0.33 else content
