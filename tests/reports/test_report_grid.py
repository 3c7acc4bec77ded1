from pathlib import Path

import numpy as np
from PIL import Image

from reports.data import read_report
from reports.grid import CELL, GAP, HEADER, MARGIN, PROMPT_WIDTH, spread, write_grid


def test_small_images_are_enlarged_by_whole_pixels_in_their_methods_column(finished, tmp_path: Path) -> None:
    report = read_report(finished.store, finished.run_id)
    picture = np.asarray(Image.open(write_grid(report, tmp_path / "grid.png")))
    left, top = MARGIN + CELL + GAP + PROMPT_WIDTH + GAP, MARGIN + HEADER
    for i, method in enumerate(finished.methods):
        source = report.grid()["fox", "p0"][method][0].path
        x = left + i * (CELL + GAP)
        cell = picture[top : top + CELL, x : x + CELL]
        assert np.array_equal(cell, np.asarray(Image.open(source)).repeat(2, axis=0).repeat(2, axis=1))


def test_rows_are_spread_over_subjects_and_prompts() -> None:
    keys = [(subject, f"p{i}") for subject in ("fox", "owl", "pig") for i in range(3)]
    assert spread(keys, 3) == [("fox", "p0"), ("owl", "p1"), ("pig", "p2")]
    assert spread(keys, 5) == [("fox", "p0"), ("fox", "p1"), ("owl", "p1"), ("owl", "p2"), ("pig", "p2")]
    assert spread(keys, 99) == keys


def test_a_run_without_samples_is_a_header(finished, tmp_path: Path) -> None:
    report = read_report(finished.store, finished.run_id)
    object.__setattr__(report, "samples", ())
    assert Image.open(write_grid(report, tmp_path / "grid.png")).height < 100
