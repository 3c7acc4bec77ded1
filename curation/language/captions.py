"""Caption hygiene: markup, addresses, prices and control characters cleaned away, hopeless captions refused."""

from __future__ import annotations

import html
import importlib.util
import re
import runpy
import unicodedata
from functools import cache

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.language.vocabulary import words

# "<3 dogs" and "a < b" are text; a tag starts with a letter, "/" or "!" and is closed soon after.
TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,300}>")
SCRIPT = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\w+", re.IGNORECASE)
PRICE = re.compile(
    r"(?:US\s?)?[$€£¥₹]\s?\d[\d.,]*(?:\s?(?:USD|EUR|GBP))?|\b\d[\d.,]*\s?(?:USD|EUR|GBP|[€£¥₹])(?!\w)",
    re.IGNORECASE,
)
FILE_NAME = re.compile(r"\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|pdf|html?|php)", re.IGNORECASE)
CAMERA_NAME = re.compile(r"(?:img|dsc[nf]?|pict|image|screenshot|photo)[\s_-]*\d[\d\s_.-]*", re.IGNORECASE)
WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’-][^\W\d_]+)*(?!\w)")  # not the letters of "DA1113"
LIST_BREAK = re.compile(r"[,|;/•·]")

OTHER_LANGUAGES = ("de", "fr", "es", "it", "pt", "nl")
# Their stop words that are English words as well, so that "zero gravity logo" is not taken for Italian.
ENGLISH_TOO = words(
    """
    bat bent bin car comment contra dell dice door dove elf elk encore era fare favor final fine font gross hare hat hay
    hem hen hoe hue inc local logo male man mayor meme men net ore pendant plus possible premier press prima primer prof
    quest relative saber salvo sea sent sob solo son soy state stop sue suit tag tale tan tempo tenant toe ton total tot
    usa vale valor van verso want war zero
    """
)
LIST_PARTS = 7
LIST_WORDS_PER_PART = 2.5


def clean_caption(text: str, config: BuildConfig) -> str:
    """The caption as it is parsed, trained on and stored; phrase spans refer to this text.

    Raises:
        Rejected: too long, empty, too short, a file name, a keyword list, or not in English.
    """
    if len(text) > config.max_caption_chars:
        raise Rejected("caption_too_long", f"{len(text)} characters")
    # Unescaping first turns "&lt;b&gt;" into the tag that a browser would have shown as text.
    text = TAG.sub(" ", SCRIPT.sub(" ", unescape(text)))
    text = unicodedata.normalize("NFC", text)
    # Cc, Cf and Co hold control, bidirectional-override and private characters: invisible, and a way to
    # make a caption read differently from what is trained on.
    text = "".join(" " if unicodedata.category(char) in ("Cc", "Co", "Cs", "Cn") else char for char in text)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = " ".join(ADDRESS.sub(" ", PRICE.sub(" ", text)).split())
    if not text:
        raise Rejected("caption_empty")
    if FILE_NAME.fullmatch(text) or CAMERA_NAME.fullmatch(text):
        raise Rejected("caption_file_name")
    found = WORD.findall(text)
    if len(found) < config.min_caption_words:
        raise Rejected("caption_too_short")
    parts = [part for part in LIST_BREAK.split(text) if part.strip()]
    if len(parts) >= LIST_PARTS and len(found) <= LIST_WORDS_PER_PART * len(parts):
        raise Rejected("caption_keyword_list")
    if not looks_english(found):
        raise Rejected("caption_not_english")
    return text


def unescape(text: str) -> str:
    """Until nothing is escaped: pages that were scraped from pages have "&amp;amp;"."""
    while (plain := html.unescape(text)) != text:
        text = plain
    return text


def looks_english(words: list[str]) -> bool:
    """Letters mostly ASCII, and no other language's function words outnumbering English ones.

    A caption without function words ("Tropical Leaves Dress Green") passes: there is nothing to tell it by.
    """
    letters = "".join(words)
    if sum(char.isascii() for char in letters) < 0.9 * len(letters):
        return False
    lowered = {word.lower() for word in words}  # a product name repeated is no second sign
    english, others = function_words()
    own = sum(word in english for word in lowered)
    foreign = max(sum(word in language for word in lowered) for language in others)
    return foreign < 2 or foreign <= own


@cache
def function_words() -> tuple[frozenset[str], tuple[frozenset[str], ...]]:
    """spaCy's stop words: English, and for each other language those that are no English stop word."""

    def stop_words(language: str) -> frozenset[str]:
        # Importing the module would import its package, and French then compiles its tokenizer's rules for seconds.
        (folder,) = importlib.util.find_spec("spacy.lang").submodule_search_locations  # type: ignore[union-attr,misc]
        return frozenset(runpy.run_path(f"{folder}/{language}/stop_words.py")["STOP_WORDS"])

    english = stop_words("en")
    return english, tuple(stop_words(language) - english - ENGLISH_TOO for language in OTHER_LANGUAGES)
