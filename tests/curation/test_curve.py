from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from curation.quality.curve import place, write_curve
from curation.quality.truth import Score

CURVE = [(0.1, Score(100, 50, 80, 40)), (0.5, Score(40, 38, 80, 36)), (0.9, Score(0, 0, 80, 0))]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_curve_is_a_table_and_a_plot_beside_it(tmp_path: Path):
    write_curve(tmp_path / "new" / "curve.csv", CURVE, (0.4, Score(50, 45, 80, 40)), 0.9, 0.6)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["curve.csv", "curve.svg"]
    assert (tmp_path / "new" / "curve.csv").read_text().splitlines() == [
        "threshold,pairs,right,precision,named,found,recall",
        "0.1,100,50,0.5,80,40,0.5",
        "0.5,40,38,0.95,80,36,0.45",
        "0.9,0,0,nan,80,0,0.0",
    ]
    plot = ElementTree.parse(tmp_path / "new" / "curve.svg").getroot()
    assert "operating point 0.4" in [text.text for text in plot.iter(f"{SVG}text")]
    for name, shares, operating in (("precision", [0.5, 0.95], 0.9), ("recall", [0.5, 0.45, 0.0], 0.5)):
        (group,) = (group for group in plot.iter(f"{SVG}g") if group.get("id") == name)
        drawn = [tuple(map(float, point.split(","))) for point in group.find(f"{SVG}polyline").get("points").split()]
        # no precision where nothing is mined
        assert drawn == [place(at, share) for (at, _), share in zip(CURVE, shares, strict=False)]
        circle = group.find(f"{SVG}circle")
        assert (float(circle.get("cx")), float(circle.get("cy"))) == place(0.4, operating)
