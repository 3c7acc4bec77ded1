"""Model cards quote what was measured and written, and nothing else."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from figures import Figure
from umm_bench.bench.plan import make_plan
from umm_bench.bench.selection import select
from umm_bench.bench.store import Store
from umm_bench.mini import family
from umm_bench.mini.cards import pictures as card_pictures
from umm_bench.mini.cards import writer as cards
from umm_bench.mini.evaluation import comparison, generator
from umm_bench.mini.measured import read_figures, write_figures

MEASURED = [
    Figure("encoder.identity_top1", 0.123, "share", True, 0.85, "95% 0.1 to 0.2, n = 50"),
    Figure("vae.psnr", 29.5, "dB", True, 28),
    generator.Rarity("sd.rarity_slope", 0.2, "share a decade", True, 0.0, "", ((900.0, 0.9, 10), (9.0, 0.5, 10))),
]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Figures and weights folders of the test's own."""
    write_figures(MEASURED, tmp_path / "figures.json")
    monkeypatch.setattr(cards, "read_figures", lambda: read_figures(tmp_path / "figures.json"))
    monkeypatch.setattr(family, "WEIGHTS", tmp_path / "weights")
    for name in ("encoder", "sd"):
        (tmp_path / "weights" / name).mkdir(parents=True)
    return tmp_path


def test_a_card_has_the_hubs_header_and_its_own_figures(measured):
    card = cards.model_card("encoder", cards.read_figures())
    header = card.split("---\n")[1]
    assert "license: apache-2.0" in header and "library_name: transformers" in header and "\n- mini\n" in header
    assert "| `encoder.identity_top1` | 0.123 | share | ≥ 0.85 | no | 95% 0.1 to 0.2, n = 50 |" in card
    assert "Below its aim: `encoder.identity_top1`" in card and "vae.psnr" not in card


def test_a_card_says_what_kind_of_network_lies_there(measured):
    folder = family.path("encoder")
    (folder / "config.json").write_text(json.dumps({"model_type": "dual", "vision_config": {"model_type": "tower"}}))
    card = cards.model_card("encoder", cards.read_figures())
    assert "\n- dual\n- tower\n" in card and "\n`dual` with `tower`, 0.0 M parameters" in card


def test_training_is_quoted_as_far_as_it_is_known(measured):
    folder = family.path("encoder")
    assert "## Training" not in cards.model_card("encoder", cards.read_figures())
    runs = [{"steps": 1200, "batch_size": 40, "hours": 0.5}, {"steps": 300, "device": "cuda"}]
    (folder / "training.json").write_text(json.dumps({"encoder": runs}))
    assert "1,200 steps of batch 40 (48,000 samples) in 0.5 h, then 300 steps device cuda" in cards.model_card(
        "encoder", cards.read_figures()
    )


def test_writing_makes_all_cards_and_the_plot(measured):
    written = cards.write_cards(["encoder", "sd"], False, measured / "docs", measured / "MODEL_CARD.md")
    assert all(path.exists() for path in written)
    whole = (measured / "MODEL_CARD.md").read_text()
    assert "`vae.psnr` | 29.5" in whole and "rarity.svg" in whole and "samples.webp" not in whole
    assert "2 of 3 aims are reached; below their aim: `encoder.identity_top1`." in whole


def test_what_another_command_measured_is_under_its_own_heading(measured):
    assert "augmentation" not in cards.family_card(cards.read_figures())
    effect = Figure("augmentation.none.leakage", 0.4, "share", False, None, "+0.300 against all")
    write_figures([effect], measured / "figures.json")
    before, after = cards.family_card(cards.read_figures()).split("What each augmentation")
    assert "`encoder.identity_top1`" in before and "augmentation." not in before
    assert "`python -m benchmarks.augmentation`" in after and "| `augmentation.none.leakage` | 0.4 |" in after


def test_bad_input_is_one_line(measured, monkeypatch, capsys):
    assert cards.main(["nosuch"]) == 2
    assert "unknown mini model 'nosuch'" in capsys.readouterr().err
    monkeypatch.setattr(cards, "read_figures", lambda: read_figures(measured / "none.json"))
    assert cards.main(["encoder"]) == 2
    error = capsys.readouterr().err
    assert "evaluate --write" in error and error.count("\n") == 1


def test_parameters_are_counted_from_the_files(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 4), np.float16), "b": np.zeros(5, np.float16)}, tmp_path / "m.safetensors")
    assert cards.parameters(tmp_path) == 17


def test_the_plot_is_svg_with_a_mark_a_point():
    root = ET.fromstring(card_pictures.rarity_plot([(900.0, 0.9, 10), (90.0, 0.7, 10), (9.0, 0.5, 10)], 0.2))
    circles = [e for e in root if e.tag.endswith("circle")]
    assert len(circles) == 3
    assert float(circles[0].get("cx")) > float(circles[2].get("cx"))  # more often seen: further right
    assert float(circles[0].get("cy")) < float(circles[2].get("cy"))  # more often right: higher


def test_the_contact_sheet_is_small_and_its_seeds_are_fixed(monkeypatch, tmp_path):
    asked = []

    def noise(prompts, seeds):
        asked.append((list(prompts), list(seeds)))
        return np.random.default_rng(0).integers(0, 256, (len(prompts), 64, 64, 3), dtype=np.uint8)

    monkeypatch.setattr(generator, "draw", noise)
    for name in ("a.webp", "b.webp"):
        sheet = card_pictures.contact_sheet(tmp_path / name)
        with Image.open(sheet) as image:
            assert image.size == (512, 512)
    assert sheet.stat().st_size < 300_000  # noise: the worst case
    assert asked[0] == asked[1] and len(asked[0][0]) == 64


def test_the_trade_off_is_read_from_the_store(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = comparison.request(subjects=2, images_per_prompt=1)
    plan = make_plan(asked, select(asked))
    identity = {"sd": 0.0, "textual_inversion": 0.5, "dreambooth": 1.0, "umm": 0.5}
    with Store(tmp_path / "store") as store:
        _fill(plan, store, identity)
        figures = {figure.name: figure for figure in comparison.trade_off(plan, store)}
        picture = comparison.draw_picture(plan, store.folder, tmp_path / "subjects.webp")
    assert {name: figures[f"tradeoff.identity_{name}"].value for name in identity} == identity
    assert figures["tradeoff.seconds_dreambooth"].value == 50 and figures["tradeoff.seconds_umm"].value == 0
    assert figures["tradeoff.dreambooth_over_umm"].value == 0.5
    with Image.open(picture) as image:
        assert image.width > 5 * 64 and image.height > 2 * 64


def _fill(plan, store, identity):
    """Rows and images as a run would leave them."""
    for method in plan.methods:
        seconds = 50.0 if method.name in ("dreambooth", "textual_inversion") else 0.0
        setups = {s.setup_keys[0]: s.case.id for s in method.samples}
        store.upsert(
            "setups",
            [
                {
                    "setup_key": key,
                    "method": method.name,
                    "case_id": subject,
                    "config_json": {},
                    "seconds": seconds,
                    "peak_mb": 1.0,
                    "path": None,
                }
                for key, subject in setups.items()
            ],
        )
        for index, sample in enumerate(method.samples):
            path = store.folder / "samples" / f"{sample.key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64)).save(path)
            value = identity[method.name]
            score = {
                "sample_key": sample.key,
                "metric": "identity",
                "protocol": plan.metrics[0].protocol,
                "value": float(index % 2) if value == 0.5 else value,
                "explanation": "",
                "metadata_json": {},
            }
            store.upsert("scores", [score])
