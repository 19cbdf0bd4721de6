"""Whatever happens to a file after its manifest was written is named; what is whole passes."""

import json
import shutil
from pathlib import Path

import pytest

from unveil.errors import OutputError, WeightsError
from unveil.weights.manifest import describe
from unveil.weights.official_model import load_official
from unveil.weights.read import load
from unveil.weights.verify import verify, write_manifest


def unheard(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def released(released_directory: Path, tmp_path: Path) -> Path:
    """A released directory with a manifest, to be damaged."""
    copy = Path(shutil.copytree(released_directory, tmp_path / "released"))
    assert write_manifest(copy, unheard) == len([f for f in copy.rglob("*") if f.is_file()]) - 1
    return copy


def test_an_untouched_directory_passes_in_both_layouts(directory: Path, released: Path) -> None:
    assert verify(directory, unheard) == (6, [])
    count, problems = verify(released, unheard)
    assert problems == [] and count > 12
    assert {"decoder-turbo/model.safetensors", "config.json"} <= set(json.loads(manifest(released))["files"])


def manifest(path: Path) -> str:
    return (path / "manifest.json").read_text()


@pytest.mark.parametrize("name", ["vae/diffusion_pytorch_model.safetensors", "model-00002-of-00003.safetensors"])
def test_truncation_a_flipped_bit_and_absence_are_named_with_what_was_expected(released: Path, name: str) -> None:
    file, whole = released / name, (released / name).read_bytes()
    file.write_bytes(whole[:-1])
    again = "; copy or download it again"
    expected = f"{file}: damaged, expected {len(whole)} bytes, found {len(whole) - 1}{again}"
    assert verify(released, unheard)[1] == [expected]

    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    was, now = json.loads(manifest(released))["files"][name]["sha256"], describe(file).sha256
    assert verify(released, unheard)[1] == [f"{file}: damaged, expected sha256 {was}, found {now}{again}"]

    file.unlink()
    assert verify(released, unheard)[1] == [f"{file}: missing, expected {len(whole)} bytes{again}"]
    file.write_bytes(whole)
    assert verify(released, unheard)[1] == []


def test_a_file_that_nobody_listed_is_named_wherever_it_lies(released: Path, directory: Path) -> None:
    for file in (released / "decoder" / "modeling.py", directory / "more.safetensors"):
        file.write_bytes(b"12345")
        path = released if released in file.parents else directory
        assert verify(path, unheard)[1] == [f"{file}: not in the manifest, 5 bytes; remove it"]


def test_every_problem_is_told_at_once(released: Path) -> None:
    (released / "config.json").unlink()
    (released / "tokenizer.json").write_text("{}")
    (released / "new.bin").touch()
    problems = verify(released, unheard)[1]
    assert [p.split(": ")[1].split(",")[0] for p in problems] == ["missing", "damaged", "not in the manifest"]


def test_without_a_manifest_the_command_that_writes_one_is_named(released: Path) -> None:
    (released / "manifest.json").unlink()
    with pytest.raises(WeightsError, match=f"manifest.json: missing.*run: unveil verify --write {released}$"):
        verify(released, unheard)


def test_a_manifest_is_never_written_over(released: Path) -> None:
    before = manifest(released)
    (released / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="manifest.json: is there already"):
        write_manifest(released, unheard)
    assert manifest(released) == before


def test_a_written_manifest_lets_both_layouts_load_and_settings_change(released: Path, directory: Path) -> None:
    assert load_official(released).config.vocab.size == 896
    (directory / "manifest.json").unlink()
    (directory / "notes").mkdir()
    (directory / "notes" / "a.txt").write_text("mine")
    write_manifest(directory, unheard)
    (directory / "config.yaml").write_text(
        (directory / "config.yaml").read_text().replace("guidance: 2", "guidance: 3")
    )
    assert verify(directory, unheard) == (7, [])
    load(directory)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "./x", ""])
def test_an_entry_that_leads_out_is_named_and_not_read(directory: Path, name: str) -> None:
    data = json.loads(manifest(directory))
    data["files"][name] = data["files"]["vae.safetensors"]
    (directory / "manifest.json").write_text(json.dumps(data))
    problem = f"{directory / 'manifest.json'}: entry '{name}' leads out of its directory"
    assert verify(directory, unheard)[1] == [problem]


def test_progress_ends_where_it_said_it_would(directory: Path) -> None:
    seen = list[tuple[str, int, int]]()
    verify(directory, lambda *event: seen.append(event))
    assert {"vae.safetensors", "tokenizer.json"} <= {what for what, _, _ in seen}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen) and seen[-1][1] >= seen[-1][2]
