"""JSON files: an array of objects, or objects one after the other; read piece by piece, never whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mmalign import DataError, FileFormat, RawRow, ReadOptions, dump_json, parse_json
from mmalign_formats.compression import damaged_archive, open_bounded, open_text
from mmalign_formats.lines import require_utf8

_BLOCK = 1 << 16
_SPACE = re.compile(r"[ \t\n\r]*")
_SCANNER = json.JSONDecoder()


class JsonArray(FileFormat):
    """Reads a JSON array of rows, or rows that stand one after the other; writes an array."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the elements."""
        with open_bounded(path, options) as file:
            reader = _Elements(file, path, options)
            for number, text in enumerate(reader, start=1):
                try:
                    require_utf8(text)
                    yield RawRow(str(path), number, parse_json(text), text=text, unit="element")
                except DataError as error:
                    yield RawRow(str(path), number, fault=str(error), text=text, unit="element")

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes an array, one row a line."""
        count = 0
        with open_text(path) as file:
            for row in rows:
                file.write(("[\n" if not count else ",\n") + dump_json(row))
                count += 1
            file.write("\n]\n" if count else "[]\n")
        return count


class _Elements:
    """The texts of the elements of an array, or of objects one after the other.

    Only as much of the file is held as the element at hand is long.
    """

    def __init__(self, file: IO[bytes], path: Path, options: ReadOptions) -> None:
        self._file = file
        self._path = path
        self._options = options
        # A block may end inside a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False

    def __iter__(self) -> Iterator[str]:
        self._more()
        self._at += self._text.startswith("\ufeff")
        array = self._next() == "["
        self._at += array
        first = True
        while character := self._next():
            if array and character == "]":
                self._at += 1
                self._require(not self._next(), "expected nothing behind the array")
                return
            if array and not first:
                self._require(character == ",", "expected ',' or ']'")
                self._at += 1
                self._require(bool(self._next()), "the array has no end; the file was cut off")
            self._require(array or character == "{", "expected an object")
            yield self._take()
            first = False
        self._require(not array, "the array has no end; the file was cut off")

    def _next(self) -> str:
        """Returns the next character that is no space, without taking it; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        """Takes the element that begins here."""
        while True:
            try:
                _, end = _SCANNER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                self._forget()
                place = f"line {self._line + self._text.count(chr(10), 0, error.pos)}"
                raise DataError(f"{self._path}:{place}: not valid JSON: {error.msg}") from None
            except (ValueError, RecursionError):
                # Where such an element ends is not known, so that nothing behind it can be read.
                problem = "an element is nested too deeply, or has a number of thousands of digits"
                raise DataError(f"{self._describe_place()}: {problem}") from None
            if end == len(self._text) and self._text[self._at] not in '{["' and self._more():
                continue  # a number may go on
            element = self._text[self._at : end]
            self._at = end
            return element

    def _more(self) -> bool:
        """Reads on, as much again as is held; returns whether there was more."""
        if self._ended:
            return False
        self._forget()
        if len(self._text) > self._options.row_bytes:
            most = f"{self._options.where}.max_row_bytes, {self._options.row_bytes:,}"
            raise DataError(f"{self._describe_place()}: an element of more bytes than {most}; raise the key")
        with damaged_archive(self._path, lambda: self._line):
            block = self._file.read(max(_BLOCK, len(self._text)))
        self._ended = not block
        self._text += self._decoder.decode(block, final=self._ended)
        return bool(block)

    def _forget(self) -> None:
        self._line += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :]
        self._at = 0

    def _describe_place(self) -> str:
        self._forget()
        return f"{self._path}:line {self._line}"

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            got = self._text[self._at : self._at + 20]
            raise DataError(f"{self._describe_place()}: not valid JSON: {problem}, got {got!r}")
