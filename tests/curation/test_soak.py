"""The long run's rows, its figures on a short one, and the model of many machines."""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.scale import Costs, estimate, lookup_cost, spoken
from benchmarks.soak import MadeShard, Watch, kill_one, memory, progress, rate, soak
from curation.config import BuildConfig
from curation.vision.dedup import perceptual_hash
from curation.vision.images import decode


def test_made_rows_are_the_same_every_time_and_no_two_alike():
    rows = list(MadeShard(3, 40).read())
    assert rows == list(MadeShard(3, 60).read())[:40]
    assert len({row.image for row in rows}) == len({row.key for row in rows}) == 40
    assert len({row.caption for row in rows}) > 38
    assert not {row.image for row in rows} & {row.image for row in MadeShard(4, 40).read()}
    hashes = [int(perceptual_hash(decode(row.image or b"", BuildConfig())), 16) for row in rows]
    assert min((a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]) > 4
    assert [MadeShard(0, 7).count(n) for n in (3, 9)] == [3, 7]


def test_quarters_are_of_the_rows():
    """The second quarter at 100 rows a second, the last at 50; memory from 200 to 300."""
    seen = Watch(rows=[(rows / 100, rows) for rows in range(0, 600, 10)])
    seen.rows += [(6 + (rows - 600) / 50, rows) for rows in range(600, 801, 10)]
    seen.memory = [(rows, 200.0 if rows < 500 else 300.0) for rows in range(0, 801, 50)]
    assert rate(seen, 2, 800) == pytest.approx(100) and rate(seen, 4, 800) == pytest.approx(50)
    assert (memory(seen, 2, 800), memory(seen, 4, 800)) == (200, 300)
    assert math.isnan(rate(Watch(), 2, 800))


def test_progress_is_by_when_shards_were_done(tmp_path: Path):
    (tmp_path / "shards").mkdir()
    for index, at in ((2, 1010.0), (0, 1030.0)):
        path = tmp_path / "shards" / f"{index:05d}.json"
        path.touch()
        os.utime(path, (at, at))
    assert progress(tmp_path, [10, 10, 7], begun=1000.0) == [(0.0, 0), (10.0, 7), (30.0, 17)]


def test_only_the_command_and_its_workers_are_killed_and_none_before_there_are_workers():
    code = "import multiprocessing, time\nif __name__ == '__main__':\n"
    code += " p = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(60,))\n p.start()\n p.join()"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as lonely:
        assert not kill_one(lonely.pid, random.Random(0))
        lonely.kill()
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        family: list[psutil.Process] = []
        deadline = time.monotonic() + 60
        while not kill_one(parent.pid, random.Random(0)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
            family = psutil.Process(parent.pid).children(recursive=True) or family
        parent.wait(60)
        for process in family:
            if process.is_running():
                process.kill()


def test_more_machines_help_until_shards_or_the_end_are_what_is_left():
    costs = Costs(caption=0.001, picture=0.001, detector=0.097, rest=0.001, linear=1e-4, quadratic=1e-14)
    few, ten, hundred, many = (estimate(costs, 10_000_000, m, 16, 10_000, 500) for m in (1, 10, 100, 1000))
    assert few.mining == pytest.approx(63 * 10_000 * 0.1)  # 1,000 shards by sixteens
    assert ten.mining == pytest.approx(7 * 1000) and hundred.mining == many.mining == pytest.approx(1000)
    assert few.end == many.end == pytest.approx(1000 + 1)
    assert few.breaks == "the workers" and many.breaks == "the end, in one process"
    assert estimate(costs, 100_000_000, 1, 16, 10_000, 500).end == pytest.approx(10_000 + 100)
    assert spoken(7200) == "2.0 h" and spoken(90) == "90 s" and spoken(3 * 86_400) == "3.0 days"


def test_a_look_up_grows_with_what_is_known():
    assert lookup_cost(2_000, 60_000, bits=4) > 0


@pytest.mark.slow
def test_a_short_soak_has_every_figure_and_the_same_bytes(tmp_path: Path):
    arguments = argparse.Namespace(rows=400, rows_per_shard=50, workers=2, kills=2)
    found = {figure.name: figure for figure in soak("local", arguments, tmp_path)}
    assert found["soak.local.same_bytes"].value == 1 and found["soak.local.kills"].value >= 1
    assert found["soak.local.rate"].value > 0 and found["soak.local.memory"].value > 50
    assert not list(tmp_path.iterdir())
