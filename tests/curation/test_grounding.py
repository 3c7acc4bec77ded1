from __future__ import annotations

from pathlib import Path

import pytest

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding import load_grounder
from curation.grounding.prompts import make_prompts
from curation.vision.checkpoints import checkpoint_id
from tests.curation.conftest import picture

# Random weights score everything: a low threshold keeps many boxes to compare.
CONFIG = BuildConfig(device="cpu", box_threshold=0.0, batch_size=4)


@pytest.fixture(scope="module")
def grounder(tiny_detector: Path):
    return load_grounder(CONFIG, str(tiny_detector))


@pytest.fixture(scope="module")
def tokenizer(tiny_detector: Path):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(tiny_detector).tokenizer


def flat(rows):
    return [[tuple(getattr(b, f) for f in ("x0", "y0", "x1", "y1", "score")) for p in row for b in p] for row in rows]


def test_a_batch_equals_its_members(grounder):
    images = [picture(1), picture(2, 64, 96), picture(3, 70, 70), picture(4, 128, 64), picture(5)]
    phrases = [["a fox"], ["a dog", "a car"], ["a"], ["a fox", "a car", "a dog"], ["a tall bottle", "a fox"]]
    together = flat(grounder.ground(images, phrases))
    alone = [flat(grounder.ground([i], [p]))[0] for i, p in zip(images, phrases, strict=True)]
    assert sum(map(len, together)) > 20
    for row, single in zip(together, alone, strict=True):
        assert len(row) == len(single)
        for box, other in zip(row, single, strict=True):
            assert box == pytest.approx(other, abs=1e-5)


def test_scores_are_sigmoid_of_the_phrases_own_tokens(grounder, tokenizer):
    import torch

    image, phrases = picture(7), ["a fox", "a car"]
    found = grounder.ground([image], [phrases])[0]
    processor = grounder._image_processor
    pixels = processor(images=image, do_pad=False, return_tensors="pt")["pixel_values"]
    padded = torch.zeros(1, 3, 64, 128)
    padded[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels
    mask = torch.zeros(1, 64, 128, dtype=torch.long)
    mask[:, : pixels.shape[2], : pixels.shape[3]] = 1
    text = tokenizer(["a fox. a car."], return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(text["input_ids"][0]) == ["[CLS]", "a", "fox", ".", "a", "car", ".", "[SEP]"]
    with torch.no_grad():
        logits = grounder._model(
            pixel_values=padded, pixel_mask=mask, input_ids=text["input_ids"], attention_mask=text["attention_mask"]
        ).logits
    for boxes, span in zip(found, ([1, 2], [4, 5]), strict=True):
        assert boxes[0].score == pytest.approx(float(logits[0].sigmoid()[:, span].max()), abs=1e-5)


def test_rows_without_phrases_and_unaskable_phrases_have_no_boxes(grounder):
    result = grounder.ground([picture(1), picture(2)], [[], ["???", "a fox"]])
    assert result[0] == []
    assert result[1][0] == [] and result[1][1]


def test_prompts_close_with_a_dot_and_split_at_the_token_limit(tokenizer):
    phrases = [f"a fox and dog {i}" for i in range(9)] + ["St. Bernard dog?", "z" * 60]
    (other,), prompts, nothing = make_prompts([["a cat"], phrases, ["?"]], tokenizer, max_tokens=32)
    assert len(prompts) > 1 and not nothing and other.text == "a cat."
    assert all(prompt.text.endswith(".") for prompt in prompts)
    assert [i for prompt in prompts for i in prompt.indices] == list(range(10))  # the last is too long alone
    for prompt in prompts:
        ids = tokenizer(prompt.text)["input_ids"]
        assert list(prompt.tokens) == ids and len(ids) <= 32
        assert prompt.text.count(".") == len(prompt.indices)  # none inside a phrase
        for index, span in zip(prompt.indices, prompt.spans, strict=True):
            plain = phrases[index].replace(".", " ").replace("?", " ")
            assert [ids[p] for p in span] == tokenizer(plain, add_special_tokens=False)["input_ids"]


def test_identity_of_a_checkpoint_is_its_content(tiny_detector: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_detector, copy)
    assert checkpoint_id(str(copy)) == checkpoint_id(str(tiny_detector))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert checkpoint_id(str(copy)) != checkpoint_id(str(tiny_detector))


def test_no_checkpoint_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"config\.json"):
        load_grounder(CONFIG, str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^--detector [^\n]* cannot be loaded: [^\n]+$"):
        load_grounder(CONFIG, str(tmp_path))


class SmallMemory:
    """A model that cannot hold more than some images at a time."""

    def __init__(self, model, most: int, error: Exception) -> None:
        self._model, self._most, self._error = model, most, error
        self.batches: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def __call__(self, **inputs):
        self.batches.append(len(inputs["pixel_values"]))
        if self.batches[-1] > self._most:
            raise self._error
        return self._model(**inputs)


@pytest.mark.parametrize("kind", ["gpu", "cpu", "worker"])
def test_out_of_memory_halves_the_batch_and_goes_on(grounder, kind: str, monkeypatch):
    import torch

    images, phrases = [picture(i) for i in range(8)], [["a fox", "a dog"]] * 8
    expected = flat(grounder.ground(images, phrases))
    error = {
        "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        "worker": RuntimeError("groundingdino-py: RuntimeError: CUDA out of memory"),
    }[kind]
    model = SmallMemory(grounder._model, 2, error)
    monkeypatch.setattr(grounder, "_model", model)
    monkeypatch.setattr(grounder, "_batch_size", 8)
    found = flat(grounder.ground(images, phrases))
    assert model.batches == [8, 4, 2, 2, 2, 2]  # and it stays small
    for row, other in zip(found, expected, strict=True):
        for box, same in zip(row, other, strict=True):
            assert box == pytest.approx(same, abs=1e-5)


def test_other_errors_and_one_image_too_many_are_raised(grounder, monkeypatch):
    monkeypatch.setattr(grounder, "_model", SmallMemory(grounder._model, 0, RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes"):
        grounder.ground([picture(1), picture(2)], [["a fox"]] * 2)
    monkeypatch.setattr(grounder, "_model", SmallMemory(grounder._model, 0, RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        grounder.ground([picture(1), picture(2)], [["a fox"]] * 2)
