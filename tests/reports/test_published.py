"""What papers print stands on a page of its own, each number with where it was read, and on no page of a run."""

from pathlib import Path

from reports.against.published import ONE_SUBJECT, TWO_SUBJECTS
from reports.render import render_run
from tests.reports.test_render_run import Page


def test_published_numbers_stand_apart_with_their_sources(finished, tmp_path: Path) -> None:
    index = render_run(finished.store, finished.run_id, tmp_path)
    text = Page(tmp_path / "published.html").text
    assert "Nothing on this page was measured here" in text
    for each in (*ONE_SUBJECT, *TWO_SUBJECTS):
        read = "a transcription, not checked" if each.transcribed else "the paper"
        text_score = "–" if each.clip_t is None else f"{each.clip_t:.3f}"
        scores = f"{each.dino:.3f} {each.clip_i:.3f} {text_score}"
        assert f"{each.method} {scores} {each.source or 'not known'} {read}" in text
    for page in index.parent.glob("*.html"):
        assert "Subject-Diffusion" not in page.read_text()
