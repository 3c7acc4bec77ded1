"""The words that subjects get: rare tokens (DreamBooth), placeholders and templates (Textual Inversion)."""

import re
from collections.abc import Sequence

from transformers import CLIPTokenizer

from umm_bench.methods import Case, Prompt, Subject, with_article

KNOWN_RARE = ("sks", "pll", "ucd")
"""One token each in Stable Diffusion's tokenizer, and what people write there."""

_RARE = re.compile(r"[b-df-hj-np-tv-xz]{2}[a-z]")  # words of three letters seldom begin with two consonants
_END = "</w>"

# Gal et al. 2208.01618, appendix: CLIP's ImageNet templates, less those that say what the picture is made of
OBJECT_TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)
_STYLE_LOOKS = (
    *("a painting", "a rendering", "a cropped painting", "the painting", "a clean painting", "a dirty painting"),
    *("a dark painting", "a picture", "a cool painting", "a close-up painting", "a bright painting"),
    *("a cropped painting", "a good painting", "a close-up painting", "a rendition", "a nice painting"),
    *("a small painting", "a weird painting", "a large painting"),
)
STYLE_TEMPLATES = tuple(f"{look} in the style of {{}}" for look in _STYLE_LOOKS)


def training_texts(subject: Subject, word: str) -> list[str]:
    """The paper's templates with `word`, the article right before it agreeing as it does in prompts."""
    templates = STYLE_TEMPLATES if subject.kind == "style" else OBJECT_TEMPLATES
    return [re.sub(r"\ba \{\}", with_article(word), template).replace("{}", word) for template in templates]


def phrase(subject: Subject, words: str) -> str:
    """What a picture of the subject is called: "a sks dog", "an automobile"; a style's words take no article."""
    return words if subject.kind == "style" else with_article(words)


def is_one_token(tokenizer: CLIPTokenizer, word: str) -> bool:
    return len(tokenizer(word, add_special_tokens=False).input_ids) == 1


def is_known(tokenizer: CLIPTokenizer, word: str) -> bool:
    """Whether it stands in the vocabulary, alone or as the end of a word: its embedding is in use."""
    return word in tokenizer.get_vocab() or is_one_token(tokenizer, word)


def rare_tokens(tokenizer: CLIPTokenizer, count: int) -> tuple[str, ...]:
    """Up to `count` words of one token that captions hardly have: `KNOWN_RARE` where they are, then by rule.

    The rule follows Ruiz et al. 2208.12242, section 3.2 (at most three letters, from the rare end of the vocabulary).
    A byte-pair vocabulary is in the order of its merges, the rarest last; a token that ends a longer one ("zor",
    "razor") is a piece of words rather than one. It may be fewer, of a vocabulary that has no more.
    """
    vocabulary = tokenizer.get_vocab()
    ends = sorted((word for word in vocabulary if word.endswith(_END)), key=vocabulary.__getitem__, reverse=True)
    longer = {word[start:] for word in ends for start in range(1, len(word) - len(_END))}
    pieces = (word.removesuffix(_END) for word in ends if word in longer)
    by_rule = (word for word in pieces if _RARE.fullmatch(word))
    found = dict.fromkeys(word for word in (*KNOWN_RARE, *by_rule) if is_one_token(tokenizer, word))
    return tuple(found)[:count]


def refused_identifier(tokenizer: CLIPTokenizer, owner: str, words: Sequence[str], prompt: Prompt) -> str | None:
    """In one line, why these identifiers cannot name the subjects of a prompt; None where they can."""
    for word in words:
        tokens = len(tokenizer(word, add_special_tokens=False).input_ids)
        if tokens != 1:
            own = ",".join(rare_tokens(tokenizer, 3)) or "a word of your own"
            return (
                f"identifier '{word}' is {tokens} tokens of the base's tokenizer and must be one; "
                f"--set {owner}.identifiers={own}"
            )
        if word in re.findall(r"\w+", prompt.template.lower()):
            return f"identifier '{word}' is a word of prompt '{prompt.id}'; choose another: --set {owner}.identifiers"
    return None


def refused_prompt(tokenizer: CLIPTokenizer, prompt: Prompt, words: Sequence[str], more: int = 0) -> str | None:
    """In one line, why the text encoder would not read all of a prompt's subjects; None where it does.

    `more` is by how many tokens each of the `words`, counted as one, is longer than that.
    """
    text = prompt.text(words)
    end = max(end for _, end in prompt.spans(words))
    last = len(tokenizer(text[:end], add_special_tokens=False, verbose=False).input_ids) + more * len(words)
    most = tokenizer.model_max_length - 2
    if last <= most:
        return None
    return f"the text encoder reads {most} tokens, and the last subject of prompt '{prompt.id}' ends at token {last}"


def refused_pictures(case: Case) -> str | None:
    """In one line, which two subjects of a case have the same pictures, so that nothing tells them apart."""
    seen: dict[tuple[str, ...], str] = {}
    for subject in case.subjects:
        pictures = tuple(sorted(str(path.resolve()) for path in subject.references))
        if pictures in seen:
            return f"'{seen[pictures]}' and '{subject.id}' have the same pictures: no word can tell them apart"
        seen[pictures] = subject.id
    return None
