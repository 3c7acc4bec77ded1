"""Values as nobody means them."""

from hypothesis import strategies as st

_NUMBERS = [
    "nan", "inf", "-inf", "-0", "0", "-1", "1", "1e999", "-1e999", "1e-999", "1001", "2**64", "0x10", "1_000", "\u0661",
    "1,5", "1.5", "true", "None", "1e30", "", " ", str(2**63), str(2**64), "9" * 5000,
]  # fmt: skip
_TEXTS = [
    "{", "{}", "{subject}", "{0}", "%s", "%", "\\", "'", '"', "\0", "\udcff", "[", "*", "(?", "-", "--", "\n", "", " ",
    "dog", "dog's", "(dog)", "d\u00f3g", "do\u0301g", "\u200bdog", "\U0001f436", "a dog", "a dog dog", "the {dog}",
    "dog " * 100, "<|endoftext|>", "<image>", "a dog <image>", "a\ndog", "dog\r",
]  # fmt: skip
_NAMES = [
    "o.png", "noext", "o.unknown", "FOLDER", "FOLDER/", "FILE/x.png", "FILE", "new/o.jpg", "", ".", "..", ".png", "~",
    "o.png/", "o.XBM", "o.PNG", "//", "\udcff", "a\0b.png", "x" * 300, "x" * 300 + ".png",
]  # fmt: skip

numbers = st.one_of(
    st.sampled_from(_NUMBERS),
    st.integers().map(str),
    st.integers(-3, 5).map(str),
    st.floats().map(str),
    st.floats(0, 1).map(str),
    st.text(max_size=6),
)
texts = st.one_of(st.sampled_from(_TEXTS), st.text(max_size=40), st.text("a dogfx{}[]()*\\", max_size=20))
names = st.one_of(st.sampled_from(_NAMES), st.text("abc./ ", max_size=8))
"""A file to read or write; FILE and FOLDER are there."""


def options(kinds: dict[str, st.SearchStrategy[str]], most: int = 3) -> st.SearchStrategy[list[str]]:
    """Up to `most` of the options, with a value each."""
    one = st.sampled_from(sorted(kinds)).flatmap(lambda name: kinds[name].map(lambda value: [name, value]))
    return st.lists(one, max_size=most).map(lambda pairs: [word for pair in pairs for word in pair])
