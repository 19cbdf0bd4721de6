"""Output files: refused before the work, whole or absent after it."""

import os

import pytest

from unveil.errors import OutputError
from unveil.files import check_target, make_directory, write_atomic


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    check_target(tmp_path / "a.PNG", [".png"])
    for name, why in (("a.txt", "must end in .png"), ("no/a.png", "there is no directory"), ("a", "must end in")):
        with pytest.raises(OutputError, match=why):
            check_target(tmp_path / name, [".png"])
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="is not a file"):
        check_target(tmp_path / "d.png", [".png"])


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="a.png: cannot be saved .No space left on device.; free some space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_writing_replaces_the_whole_file(tmp_path):
    write_atomic(tmp_path / "a", b"a longer content")
    write_atomic(tmp_path / "a", b"short")
    assert (tmp_path / "a").read_bytes() == b"short"


def test_a_directory_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        make_directory(tmp_path / "f" / "d")
    make_directory(tmp_path / "x" / "y")
    assert (tmp_path / "x" / "y").is_dir()
