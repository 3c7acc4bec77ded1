"""What will be written is tried first, and the try leaves nothing."""

import stat
from pathlib import Path

import pytest

from umm_bench.cli.outputs import check_file, check_folder, check_image_file
from umm_bench.errors import UserError


def test_a_try_leaves_nothing_behind(tmp_path):
    check_folder(tmp_path / "new" / "folder", "--output")
    check_file(tmp_path / "new" / "card", "--save-card")
    check_image_file(tmp_path / "new.png", "--out")
    assert not list(tmp_path.iterdir())
    there = tmp_path / "there.png"
    there.write_bytes(b"before")
    check_image_file(there, "--out")
    check_folder(tmp_path, "--output")
    assert there.read_bytes() == b"before" and list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/deep", "x" * 300, "nul\0", "/proc/nowhere/x"])
def test_folders_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*--output"):
        check_folder(tmp_path / name, "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["folder", "file/x", "x" * 250, "/proc/x", ""])
def test_files_that_cannot_be(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*--save-card"):
        check_file(tmp_path / name, "--save-card")


@pytest.mark.parametrize("name", ["noext", "x.unknown", "x.xbm", "x.txt", ".png", "x.hdf"])
def test_names_that_no_picture_format_belongs_to(tmp_path, name):
    with pytest.raises(UserError, match=r"use \.png"):
        check_image_file(tmp_path / name, "--out")


@pytest.mark.parametrize("name", ["x.PNG", "x.jpeg", "x.webp", "x.tif"])
def test_names_that_one_does(tmp_path, name):
    check_image_file(tmp_path / name, "--out")


def test_a_folder_without_permission_and_a_device(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    try:
        (closed / "probe").touch()
    except PermissionError:
        with pytest.raises(UserError, match="Permission denied"):
            check_folder(closed, "--output")
    check_file(Path("/dev/null"), "--save-card")
    assert Path("/dev/null").is_char_device()
