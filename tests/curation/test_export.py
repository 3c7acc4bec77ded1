from __future__ import annotations

import json
import tarfile
from pathlib import Path

import duckdb
import pandas

from curation import build_pairs
from tests.curation.conftest import encoded, picture, row, write_tar
from tests.curation.test_build import config, rows_of


def test_webdataset_export_has_every_pair_and_loads(tmp_path: Path, grounder):
    rows = [row(index) for index in range(4)] + [row(4, jpg=encoded(picture(4), "PNG"))]
    write_tar(tmp_path / "in" / "0.tar", rows)
    build = config(tmp_path / "in", tmp_path / "out", export="webdataset")
    build_pairs(build, grounder)
    [tar] = (tmp_path / "out" / "webdataset").iterdir()
    before = tar.read_bytes()
    pairs = rows_of(tmp_path / "out")
    with tarfile.open(tar) as opened:
        content = {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]
    assert len(content) == 4 * len(pairs) == 60
    for pair in pairs:
        assert content[f"{pair['id']}.jpg"] == pair["image"]["bytes"]
        assert content[f"{pair['id']}.crop.png"] == pair["crop"]["bytes"]
        assert content[f"{pair['id']}.txt"].decode() == pair["caption"]
        assert json.loads(content[f"{pair['id']}.json"])["box"] == pair["box"]

    import datasets

    files = {"train": [str(tar)]}
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 15
    assert loaded[0]["jpg"].size == (96, 64) and loaded[0]["json"]["phrase"] == pairs[0]["phrase"]

    build_pairs(build, grounder)
    assert tar.read_bytes() == before


def test_a_build_opens_in_duckdb_pandas_and_the_trainer(corpus: Path, tmp_path: Path, grounder):
    from umm_bench.umm.pairs import read_pairs

    output = tmp_path / "out"
    build_pairs(config(corpus, output), grounder)
    frame = pandas.read_parquet(output / "data")
    assert len(frame) == 72 and frame["phrase"].str.len().min() > 0
    query = f"select count(*), count(distinct id), min(box[3] - box[1]) from '{output}/data/*.parquet'"
    [(count, distinct, width)] = duckdb.connect().execute(query).fetchall()
    assert (count, distinct) == (72, 72) and width > 0
    for pair in read_pairs(output):
        assert pair.caption[pair.start : pair.end].endswith(pair.noun)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["counts"]["pairs"] == 72 and len(manifest["files"]) == 3 and manifest["versions"]["torch"]
