"""What a corpus says about a picture being safe: words, booleans and probabilities of every dialect, judged alike.

Words come from LAION (UNLIKELY, UNSURE, NSFW), Google's SafeSearch, Civitai (None, Soft, Mature, X; PG to XXX),
Danbooru and its kin (general, sensitive, questionable, explicit), GantMan's classifier (drawings, neutral, sexy, porn,
hentai) and data sets of the hub (sfw, safe, yes, no). Danbooru's "s" was once safe and is now sensitive: unreadable.

A value that is missing (no such column, an empty cell, null, NaN) says nothing, and its row passes as the rows of a
corpus without the column do. A value that is there and cannot be read is never taken for safe.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from curation.errors import Rejected
from curation.language.vocabulary import words

# Column names as `squash` gives them.
PROBABILITIES = words(
    """
    punsafe pnsfw unsafescore unsafeprob unsafeprobability nsfwscore nsfwprob nsfwprobability nsfwconfidence
    nsfwscoregantman nsfwscoreopennsfw2 imagensfw promptnsfw
    """
)
STATEMENTS = words(
    """
    nsfw isnsfw nsfwflag nsfwlabel nsfwtag nsfwtype nsfwprediction unsafe isunsafe notsafe safety safetylabel
    contentsafety contentrating agerating isadult adult isexplicit isporn over18 possiblysensitive
    """
)
SAFE_IF_TRUE = words("safe issafe sfw issfw safeforwork")
LEVELS = words("nsfwlevel")  # Civitai's: a word, or one of the numbers below
RATINGS = words("rating")  # Danbooru's; a column of this name may as well hold stars
COLUMNS = PROBABILITIES | STATEMENTS | SAFE_IF_TRUE | LEVELS | RATINGS

# Values as `normal` gives them.
MISSING = frozenset({"", "null", "nan", "nil", "na", "<na>"})
SAFE = words(
    """
    unlikely veryunlikely unsure none sfw safe safeforwork notnsfw nonnsfw no n false f clean normal neutral drawings
    drawing general g pg everyone allages
    """
)
UNSAFE = words(
    """
    nsfw unsafe notsafe notsafeforwork notsfw yes y true t likely verylikely possible soft mature x xx xxx r pg13 nc17
    r18 18+ sensitive suggestive questionable q explicit e adult adultsonly porn pornographic hentai sexy sexual erotic
    erotica nude nudity naked gore violence violent blocked banned
    """
)
CIVITAI_LEVELS = {1: "PG", 2: "PG-13", 4: "R", 8: "X", 16: "XXX", 32: "Blocked"}
NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?")
BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_./\-\u2010-\u2015]+(?=[^\W_])")
UNREADABLE = "safety_unreadable"


@lru_cache(maxsize=4096)
def squash(name: str) -> str:
    """A column's name without what dialects differ in: "isNSFW", "is_nsfw " and "IS-NSFW" are one."""
    return "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalnum())


def normal(text: str) -> str:
    """A word as it is looked up: " Nsfw ", "ＮＳＦＷ" and '"NSFW"' are one, "rating:explicit" is "explicit"."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(char for char in text if unicodedata.category(char) != "Cf").strip(" \t\r\n\"'")
    return BETWEEN_WORDS.sub("", text.removeprefix("rating:"))


def judge(statement: str, max_punsafe: float) -> None:
    """Refuses a row for what is said about it.

    Args:
        statement: a word, or a number, of which 1 is unsafe for sure.
        max_punsafe: the greatest number that passes.

    Raises:
        Rejected: unsafe, or nothing that can be read.
    """
    word, number = normal(statement), as_probability(statement)
    if word in MISSING or word in SAFE:
        return
    if number is not None:
        if number > max_punsafe:
            raise Rejected("unsafe_score", f"{number:.2f}")
    elif word in UNSAFE:
        raise Rejected("flagged_nsfw", statement)
    else:
        raise Rejected(UNREADABLE, statement)


def read_safety(row: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """(the worst that is said, the highest probability) over all safety columns of a row; None where there is none.

    Raises:
        Rejected: a value of another type than text, truth and number.
    """
    said: list[str] = []
    numbers: list[float] = []
    for name, statement in statements(row):
        number = as_probability(statement)
        if name in PROBABILITIES and number is not None:
            numbers.append(number)
        else:
            said.append(statement)
    return worst(said), max(numbers, default=None)


def statements(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(squashed column, what it says in the terms of `judge`), where it says anything."""
    for column, cell in row.items():
        name = squash(column)
        if name in COLUMNS:
            for value in cell if isinstance(cell, list | tuple) else [cell]:
                statement = as_statement(name, value)
                if statement is not None:
                    yield name, statement


def as_statement(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if not isinstance(value, str | bool | int | float):
        raise Rejected(UNREADABLE, f"{name}: {value!r:.100}")
    text = str(value).encode("utf-8", "backslashreplace").decode()
    word, number = normal(text), as_probability(text)
    if word in MISSING or (name in PROBABILITIES and word == "none") or (name in RATINGS and number is not None):
        return None
    if name in SAFE_IF_TRUE and (number is not None or word in ("true", "t", "yes", "y", "false", "f", "no", "n")):
        return repr(1 - number) if number is not None else "safe" if word[0] in "ty" else "unsafe"
    if name in LEVELS and number is not None:
        return CIVITAI_LEVELS.get(int(number), f"level {text}")
    return text


def worst(said: Iterable[str]) -> str | None:
    """The one that `judge` refuses, if it refuses any: no threshold puts a word before another or a number."""

    def danger(statement: str) -> float:
        number = as_probability(statement)
        if number is not None:
            return number
        return -1.0 if normal(statement) in SAFE else math.inf

    return max(said, key=danger, default=None)


def as_probability(text: str) -> float | None:
    """ "0.97", "0,97" and "97 %" alike; None for what is no finite number from 0 on."""
    number = as_number(text)
    return number if number is not None and number >= 0 else None


def as_number(text: str) -> float | None:
    """A number as people and programs write it, with a decimal comma or a percent sign; None for any other text."""
    text = unicodedata.normalize("NFKC", text).strip().lower()
    share = text.endswith("%")
    text = text.removesuffix("%").rstrip()
    if not NUMBER.fullmatch(text):
        return None
    number = float(text.replace(",", ".")) / (100 if share else 1)
    return number if math.isfinite(number) else None
