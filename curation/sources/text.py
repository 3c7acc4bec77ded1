"""Text files of strangers: byte order marks, UTF-16 and UTF-32, bytes that are no UTF-8, keys that come twice."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from curation.sources.files import open_file

BUFFER_BYTES = 1 << 20
MAX_LINE_BYTES = 16 << 20
# UTF-32's first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


class BrokenTable(ValueError):
    """Not what its name says, or damaged beyond use."""


def encoding_of(head: bytes) -> str:
    """What the byte order mark at the beginning of a text says; without one it is UTF-8."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), "utf-8")


def decode_text(data: bytes) -> str:
    """
    Raises:
        UnicodeDecodeError
    """
    return data.decode(encoding_of(data[:4]))


def read_json(text: str) -> Any:
    """
    Raises:
        ValueError: no JSON, or an object with a key twice, of which one would hide what the other says.
        RecursionError: nested too deeply.
    """
    return json.loads(text.lstrip("\ufeff"), object_pairs_hook=whole_object)


def whole_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice in one object")
    return found


class TextLines:
    """Lines of a text file; bytes that are no UTF-8 become lone surrogates.

    ``position`` is the byte after the last line: of the unpacked text, in UTF-8 whatever the file is in.
    """

    def __init__(self, url: str, offset: int) -> None:
        raw = io.BufferedReader(open_file(url), BUFFER_BYTES)
        stream: Any = gzip.GzipFile(fileobj=raw) if url.lower().endswith(".gz") else raw
        encoding = encoding_of(stream.peek(4)[:4])
        self._stream: BinaryIO = stream
        self.position = offset
        if encoding in ("utf-16", "utf-32"):
            self._stream = io.BufferedReader(Recoded(stream, encoding), BUFFER_BYTES)
            while offset and (skipped := self._stream.read(min(offset, BUFFER_BYTES))):
                offset -= len(skipped)
        elif encoding == "utf-8-sig" and not offset:
            self.position = stream.seek(len(codecs.BOM_UTF8))
        else:
            stream.seek(offset)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        if len(line) == MAX_LINE_BYTES:
            raise BrokenTable(f"a line of more than {MAX_LINE_BYTES} bytes at byte {self.position}")
        self.position += len(line)
        return line.decode("utf-8", "surrogateescape")

    def __enter__(self) -> TextLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class Recoded(io.RawIOBase):
    """A text of another encoding as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._stream.read(BUFFER_BYTES)
            self._left = self._decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
            if not data:
                break
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
