"""Mutations of configurations, always the same for a seed: wrong values, keys and shapes, and damaged text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import yaml
from media_mutations import mutate

Place = tuple[Any, Any]
"""A mapping or a list, and one of its keys."""

_DEEP = "nested-deeply"

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, -(2**63), float("nan"), float("inf"), 1e-320),
    *("", " ", "a\nb", "\x1b[31m", "\0", "x" * 10_000, "${train}", "${nowhere}", "${oc.env:NOWHERE}", "${", "${.a}"),
    *(
        "/",
        "..",
        "~",
        "/dev/null",
        "nowhere.jsonl",
        "nowhere:part",
        "os:system",
        ":",
        "http://[",
        "package:",
        "1e5",
        "∞",
    ),
    _DEEP,
    *([], [[]], [None], {}, {"name": None}, {"name": []}, {"": ""}, {1: 2}, [{"name": "dpo"}] * 3, {"name": {"a": 1}}),
)


def mutate_configs(bases: list[dict[str, Any]], count: int, seed: str) -> Iterator[bytes]:
    """Yields YAML files: four of five with other values, keys or shapes, the others with damaged bytes."""
    chance = random.Random(seed)
    for number in range(count):
        config = deepcopy(chance.choice(bases))
        if number % 5 == 4:
            yield from mutate(_write(config), 1, f"{seed} {number}")
            continue
        for _ in range(chance.randrange(1, 4)):
            _change(config, chance)
        yield _write(config)


def _write(config: dict[str, Any]) -> bytes:
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    # Deeper than the library that writes would go.
    return text.replace(_DEEP, "[" * 2000 + "]" * 2000).encode()


def _change(config: dict[str, Any], chance: random.Random) -> None:
    places = list(_iter_places(config))
    if not places:
        return
    owner, key = chance.choice(places)
    match chance.randrange(8):
        case 0 | 1 | 2:
            owner[key] = deepcopy(chance.choice(VALUES))
        case 3:
            del owner[key]
        case 4:
            owner[key] = [owner[key]] if chance.random() < 0.5 else {"name": owner[key]}
        case 5:
            other, place = chance.choice(places)
            owner[key] = deepcopy(other[place])
        case 6 if isinstance(owner, dict):
            owner[_misspell(str(key), chance)] = owner.pop(key)
        case _:
            owner[key] = _nest(chance.choice([3, 30, 60]))


def _iter_places(tree: Any) -> Iterator[Place]:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _iter_places(tree[key])


def _misspell(key: str, chance: random.Random) -> str:
    at = chance.randrange(len(key) + 1)
    return chance.choice([key[:at] + key[at + 1 :], key[:at] + "x" + key[at:], key.upper(), key[::-1], f"{key}.{key}"])


def _nest(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"name": value}
    return value
