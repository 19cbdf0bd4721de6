"""inspect and verify, from arguments to exit codes."""

import json
import shutil


def test_inspect_shows_the_same_as_a_table_and_as_json(unveil, released_directory):
    facts = json.loads(unveil("inspect", released_directory, "--json").out)
    shown = unveil("inspect", released_directory)
    backbone = facts["parts"]["backbone"]
    assert shown.code == 0 and f"{released_directory} (official layout)" in shown.out
    row = next(line for line in shown.out.splitlines() if line.startswith("backbone"))
    assert row.split() == ["backbone", *(f"{backbone[k]:,}" for k in ("tensors", "parameters", "bytes")), "BF16"]
    assert "context 8192, vocabulary 896, codes from 768" in shown.out and "<|mask|> 479" in shown.out


def test_inspect_knows_the_shipped_model_and_names_what_is_not_there(unveil, refused, tmp_path):
    assert "(unveil layout)" in unveil("inspect", "tiny").out
    assert "no model there" in refused("inspect", tmp_path)


def test_a_directory_of_other_things_is_no_model_whatever_is_asked_of_it(refused, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"")
    (pictures / "elsewhere").symlink_to("/etc")
    for arguments in (
        ("inspect", pictures),
        ("plan", pictures, "--ram", "4GB"),
        ("convert", pictures, tmp_path / "t", "--layout", "unveil"),
        ("generate", "a", "-o", tmp_path / "a.png", "--model", pictures),
    ):
        assert f"{pictures}: no model there (neither config.yaml nor config.json)" in refused(*arguments)
    assert "no model ''" in refused("inspect", "")


def test_a_place_that_cannot_be_fetched_from_or_to_is_named(refused, tmp_path):
    (tmp_path / "star.png").write_bytes(b"")
    assert "star.png: is there already" in refused("fetch", "x/y", "--to", tmp_path / "star.png")
    assert "'' is no repository; write OWNER/NAME" in refused("fetch", "")


def test_verify_leaves_with_0_when_whole_1_when_damaged_and_2_without_a_manifest(
    unveil, refused, released_directory, tmp_path
):
    model = shutil.copytree(released_directory, tmp_path / "m")
    assert f"run: unveil verify --write {model}" in refused("verify", model)
    assert unveil("verify", "--write", model).out.endswith("files, recorded\n")
    assert "is there already" in refused("verify", "--write", model)
    whole = unveil("verify", model)
    assert whole.code == 0 and whole.out.endswith("files, whole\n")
    (model / "vae" / "config.json").unlink()
    damaged = unveil("verify", model, "--json")
    assert damaged.code == 1
    [problem] = json.loads(damaged.out)["problems"]
    assert problem.startswith(f"{model / 'vae' / 'config.json'}: missing, expected ")


def test_verify_finds_the_shipped_model_whole(unveil):
    assert unveil("verify", "tiny").out.endswith("tiny: 7 files, whole\n")


def test_convert_writes_a_directory_that_verifies(unveil, refused, released_directory, tmp_path):
    done = unveil("convert", released_directory, tmp_path / "ours", "--layout", "unveil", "--json")
    assert done.code == 0 and json.loads(done.out)["file"] == str(tmp_path / "ours")
    assert unveil("verify", tmp_path / "ours").code == 0
    assert "say what to convert" in refused("convert", released_directory)
    assert "say what to convert" in refused("convert", released_directory, "--layout", "unveil")
    assert "say what to convert" in refused("convert", released_directory, tmp_path / "x", "--sigvq")
    assert "the released layout cannot say image_tokenizer.window" in refused(
        "convert", "tiny", tmp_path / "x", "--layout", "official"
    )
