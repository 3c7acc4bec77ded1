"""The cache of features: what is kept, what is not believed, what goes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from umm_bench.errors import UserError
from umm_bench.metrics import features
from umm_bench.metrics.embedding import VisionEncoder
from umm_bench.metrics.features import FeatureCache, Memory, kept_in


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return path


class Counting:
    """Computes a number of its own each time, so that what was kept is told from what was computed again."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return np.arange(3, dtype=np.float32) + 10 * self.calls


def entries(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_what_was_computed_is_kept_for_another_process_and_is_the_same_to_the_bit(tmp_path, picture):
    compute = Counting()
    with kept_in(tmp_path / "features"):
        first = Memory("encoder").of(picture, compute)
        again = Memory("encoder").of(picture, compute)
        Memory("other").of(picture, compute)
    assert compute.calls == 2 and first.tobytes() == again.tobytes() and first.dtype == again.dtype
    assert [path.parent.name for path in entries(tmp_path / "features")] == ["encoder", "other"]


def test_without_a_folder_nothing_is_written_and_the_memory_remembers(tmp_path, picture):
    compute, memory = Counting(), Memory("encoder")
    assert memory.of(picture, compute) is memory.of(picture, compute)
    assert compute.calls == 1 and list(tmp_path.iterdir()) == [picture]


def test_a_picture_with_other_content_is_another_and_a_copy_is_the_same(tmp_path, picture):
    compute, memory = Counting(), Memory("encoder")
    copy = tmp_path / "copy.png"
    copy.write_bytes(picture.read_bytes())
    assert memory.of(copy, compute) is memory.of(picture, compute)
    Image.new("RGB", (4, 4), "blue").save(picture)
    memory.of(picture, compute)
    assert compute.calls == 2
    with pytest.raises(UserError, match="no image file at"):
        memory.of(tmp_path / "gone.png", compute)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def empty(path):
    path.write_bytes(b"")


def turn_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def of_another_picture(path):
    FeatureCache(path.parents[1]).write(path.parent.name, "other", np.zeros(3, np.float32))
    os.replace(path.with_name("other.safetensors"), path)


def without_digest(path):
    save_file({"features": load_file(path)["features"]}, path)


def no_safetensors(path):
    path.write_text("this is none")


@pytest.mark.parametrize("damage", [cut, empty, turn_a_bit, of_another_picture, without_digest, no_safetensors])
def test_a_damaged_entry_is_computed_again_and_made_good(tmp_path, picture, damage):
    compute = Counting()
    with kept_in(tmp_path / "features"):
        Memory("encoder").of(picture, compute)
        (entry,) = entries(tmp_path / "features")
        damage(entry)
        again = Memory("encoder").of(picture, compute)
        assert compute.calls == 2 and again.tolist() == [20, 21, 22]
        assert Memory("encoder").of(picture, compute).tolist() == [20, 21, 22]
    assert compute.calls == 2


def test_a_folder_that_cannot_be_written_to_costs_time_and_not_the_run(tmp_path, picture):
    compute = Counting()
    (tmp_path / "features").write_text("a file")
    with kept_in(tmp_path / "features"):
        assert Memory("encoder").of(picture, compute).tolist() == [10, 11, 12]
        assert Memory("encoder").of(picture, compute).tolist() == [20, 21, 22]


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = FeatureCache(tmp_path, limit_bytes=9_000)
    array = np.zeros(200, np.float32)
    for number in range(8):
        cache.write("encoder", f"{number}", array)
        os.utime(tmp_path / "encoder" / f"{number}.safetensors", (number, number))
    assert cache.read("encoder", "0") is not None  # used now
    cache.write("encoder", "8", array)
    cache.write("encoder", "9", array)
    kept = {path.stem for path in entries(tmp_path)}
    assert {"0", "8", "9"} <= kept and not {"1", "2"} & kept
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 9_000
    assert cache.read("encoder", "1") is None


def test_two_processes_at_once_leave_whole_entries(tmp_path):
    code = f"""
import numpy as np
from pathlib import Path
from umm_bench.metrics.features import FeatureCache
cache = FeatureCache(Path({str(tmp_path)!r}), limit_bytes=60_000)
for turn in range(3):
    for number in range(40):
        found = cache.read("encoder", str(number))
        assert found is None or (found == number).all()
        cache.write("encoder", str(number), np.full(500, number, np.float32))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert not any("damaged" in text or "cannot be read" in text for text in told)
    assert entries(tmp_path) and not list(tmp_path.rglob("*.tmp"))


def test_the_memory_forgets_what_it_has_no_room_for(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(features, "MEMORY_BYTES", 20)
    other = tmp_path / "other.png"
    Image.new("RGB", (4, 4), "blue").save(other)
    compute, memory = Counting(), Memory("encoder")
    for path in (picture, picture, other, picture):
        memory.of(path, compute)
    assert compute.calls == 3


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 255, (40 + number, 32, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return paths


def test_an_embedding_does_not_depend_on_what_stands_beside_it(world, pictures):
    def fresh():
        return VisionEncoder(str(world / "encoder"), "encoder")

    together = fresh().images(pictures)
    turned = fresh().images(pictures[::-1])[::-1]
    alone = np.concatenate([fresh().images([path]) for path in pictures])
    assert together.tobytes() == turned.tobytes() == alone.tobytes()
    assert np.allclose(np.linalg.norm(together, axis=1), 1)


def test_a_kept_embedding_is_the_computed_one(world, pictures, tmp_path, monkeypatch):
    def fresh():
        return VisionEncoder(str(world / "encoder"), "encoder")

    with kept_in(tmp_path / "features"):
        computed = fresh().images(pictures)
        monkeypatch.setattr(VisionEncoder, "model", property(lambda self: pytest.fail("computed again")))
        kept = fresh().images(pictures)
    assert kept.tobytes() == computed.tobytes()


def test_other_weights_or_another_preparation_are_another_encoder(world, tmp_path, pictures):
    import json
    import shutil

    folder = shutil.copytree(world / "encoder", tmp_path / "encoder")
    with kept_in(tmp_path / "features"):
        first = VisionEncoder(str(folder), "encoder").images(pictures)
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
        assert not np.allclose(first, VisionEncoder(str(folder), "encoder").images(pictures))
