"""Rare tokens by rule, articles, templates, and what is refused before anything is trained."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from baselines.dreambooth import DreamBooth, DreamBoothConfig, StableDiffusionDreamBooth
from baselines.dreambooth_lora import DreamBoothLora, DreamBoothLoraConfig, StableDiffusionDreamBoothLora, identifier_of
from baselines.finetuning import scale_of
from baselines.textual_inversion import StableDiffusionTextualInversion, TextualInversion, TextualInversionConfig
from baselines.words import OBJECT_TEMPLATES, STYLE_TEMPLATES, is_one_token, rare_tokens, training_texts
from umm_bench.base import Base, load_base
from umm_bench.errors import UserError
from umm_bench.methods import Case, Prompt, Subject

PROMPT = Prompt("p0", "a {subject} on a blue background", "recontextualise")


def subject_of(noun: str, *pictures: str, kind: str = "object", name: str = "one") -> Subject:
    return Subject(name, noun, tuple(map(Path, pictures)), kind)


@pytest.mark.parametrize("noun", ["automobile", "dog"])
def test_the_article_of_training_is_that_of_prompts(noun: str) -> None:
    """ "an automobile" in both, and "a sks automobile" in both."""
    case = Case((subject_of(noun),))
    for word in (
        noun,
        *DreamBooth.words(DreamBoothConfig(), case),
        *TextualInversion.words(TextualInversionConfig(), case),
    ):
        trained = training_texts(case.subject, word)
        start = PROMPT.text([word]).removesuffix(" on a blue background")
        assert trained[0] == f"a photo of {start}"
        assert all(f"a {word}" not in text or word[0] not in "aeiou" for text in trained)


def test_the_templates_are_the_papers() -> None:
    assert len(OBJECT_TEMPLATES) == 27 and len(STYLE_TEMPLATES) == 19
    assert training_texts(subject_of("dog"), "<w>")[8] == "a photo of the cool <w>"
    assert training_texts(subject_of("ink", kind="style"), "<w>")[0] == "a painting in the style of <w>"
    assert "a photo of my apple" in training_texts(subject_of("apple"), "apple")


def test_known_rare_words_come_first_and_then_pieces_of_words(base: Base) -> None:
    """Of the tiny vocabulary: "sks" and "pll" are tokens, "ucd" is none, "zdr" ends "azdr" and is a piece."""
    assert rare_tokens(base.tokenizer, 9) == ("sks", "pll", "zdr")
    assert rare_tokens(base.tokenizer, 1) == ("sks",)
    assert DreamBooth.defaults(base).identifiers == ("sks", "pll", "zdr")


def test_the_mini_tokenizer_gets_words_that_it_knows_as_one_token() -> None:
    tokenizer = load_base("mini").tokenizer
    words = rare_tokens(tokenizer, 32)
    assert not is_one_token(tokenizer, "sks") and len(words) == len(set(words)) >= 16
    assert all(is_one_token(tokenizer, word) and len(word) == 3 for word in words)


def test_a_base_without_rare_words_has_none() -> None:
    words = ["<|startoftext|>", "<|endoftext|>", *"abc", "a</w>", "b</w>", "c</w>"]
    assert rare_tokens(CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]), 3) == ()


@pytest.mark.parametrize("method", [DreamBooth, DreamBoothLora])
def test_an_identifier_that_the_tokenizer_splits_is_refused(method: type[DreamBooth], base: Base) -> None:
    case, config = Case((subject_of("fox"),)), replace(method.defaults(base), identifiers=("qqq",))
    reason = method.check(config, base, case, PROMPT)
    assert reason == (
        "identifier 'qqq' is 3 tokens of the base's tokenizer and must be one; "
        f"--set {method.name}.identifiers=sks,pll,zdr"
    )
    assert method.check(replace(config, identifiers=("sks",)), base, case, PROMPT) is None


def test_an_identifier_that_the_prompt_says_is_refused(base: Base) -> None:
    prompt = Prompt("p7", "a {subject} of sks", "property")
    reason = DreamBooth.check(DreamBooth.defaults(base), base, Case((subject_of("fox"),)), prompt)
    assert reason is not None and reason.startswith("identifier 'sks' is a word of prompt 'p7'")


def test_two_subjects_of_the_same_pictures_are_refused_together_and_not_alone(base: Base) -> None:
    one, two = subject_of("fox", "a.png", "b.png"), subject_of("cat", "b.png", "a.png", name="two")
    prompt = Prompt("p", "a {subject_1} and a {subject_2}", "two_references")
    methods = (DreamBooth, DreamBooth.defaults(base)), (DreamBoothLora, DreamBoothLora.defaults(base))
    for method, config in methods:
        reason = method.check(config, base, Case((one, two)), prompt)
        assert reason is not None
        assert "'one' and 'two' have the same pictures" in reason or "share an identifier" in reason
        assert method.check(config, base, Case((two,)), PROMPT) is None
    apart = replace(two, references=(Path("c.png"),))
    assert DreamBooth.check(DreamBooth.defaults(base), base, Case((one, apart)), prompt) is None


@pytest.mark.parametrize("placeholder", ["f", "sks", "sks</w>"])
def test_a_placeholder_that_is_a_word_is_refused_while_planning(placeholder: str, base: Base) -> None:
    config = TextualInversionConfig(placeholder=placeholder)
    reason = TextualInversion.check(config, base, Case((subject_of("fox"),)), PROMPT)
    assert (
        reason == f"the placeholder '{placeholder}' is already a word of the base; --set textual_inversion.placeholder"
    )


def test_a_subject_beyond_the_text_encoders_tokens_is_refused(base: Base) -> None:
    """46 tokens are read. "seen" takes 4, each vector one."""
    case = Case((subject_of("fox"),))
    prompt = Prompt("p3", "seen {subject} there", "property")
    fits, too_many = (TextualInversionConfig(num_vectors=count) for count in (42, 43))
    assert TextualInversion.check(fits, base, case, prompt) is None
    reason = TextualInversion.check(too_many, base, case, prompt)
    assert reason == "the text encoder reads 46 tokens, and the last subject of prompt 'p3' ends at token 47"
    long = Case((subject_of("f" * 50),))
    assert "ends at token 52" in str(DreamBooth.check(DreamBooth.defaults(base), base, long, PROMPT))


def test_an_adapters_word_depends_on_its_subject_alone(base: Base) -> None:
    config = DreamBoothLoraConfig(identifiers=("sks", "pll", "zdr"))
    names = [subject_of("fox", name=f"fox{number}") for number in range(20)]
    words = {one.id: identifier_of(config, one) for one in names}
    assert set(words.values()) == {"sks", "pll", "zdr"}
    same = [one for one in names if words[one.id] == "sks"][:2]
    prompt = Prompt("p", "a {subject_1} and a {subject_2}", "two_references")
    assert "share an identifier (sks, sks)" in str(DreamBoothLora.check(config, base, Case(tuple(same)), prompt))
    other = next(one for one in names if words[one.id] == "pll")
    pictures = replace(same[0], references=(Path("a.png"),)), replace(other, references=(Path("b.png"),))
    assert DreamBoothLora.check(config, base, Case(pictures), prompt) is None
    assert DreamBoothLora.words(config, Case(pictures)) == ("sks fox", "pll fox")


@pytest.mark.parametrize(("width", "scale"), [(192, "mini"), (768, "sd"), ([1024, 1024], "sd")])
def test_defaults_go_by_the_bases_size(width: object, scale: str, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"cross_attention_dim": width}
    monkeypatch.setattr("baselines.finetuning.UNet2DConditionModel.load_config", lambda *_, **__: loaded)
    assert scale_of(base) == scale
    found = [type(method.defaults(base)) for method in (TextualInversion, DreamBooth, DreamBoothLora)]
    large = [StableDiffusionTextualInversion, StableDiffusionDreamBooth, StableDiffusionDreamBoothLora]
    assert found == (large if scale == "sd" else [TextualInversionConfig, DreamBoothConfig, DreamBoothLoraConfig])


def test_a_base_without_a_unet_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load the UNet of base 'empty'"):
        scale_of(Base("empty", str(tmp_path)))
