"""Presets and files: what is read is what was written, and errors name file, field and remedy."""

from pathlib import Path

import pytest

from unveil.config import ModelConfig, dump, load_config, load_preset, parse, preset_names, validate
from unveil.errors import ConfigError


def test_the_presets_are_bench_official_and_tiny() -> None:
    assert preset_names() == ["bench", "official", "tiny"]
    assert [load_preset(name).name for name in preset_names()] == preset_names()


@pytest.mark.parametrize("name", ["bench", "official", "tiny"])
def test_a_dumped_preset_reads_back_equal(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(dump(load_preset(name)), encoding="utf-8")
    assert load_config(file) == load_preset(name)


def test_a_wrong_preset_name_gives_the_nearest_or_all() -> None:
    with pytest.raises(ConfigError, match="no preset named 'tny'; did you mean 'tiny'"):
        load_preset("tny")
    with pytest.raises(ConfigError, match="presets: bench, official, tiny"):
        load_preset("zzz")


@pytest.mark.parametrize(
    ("section", "typo", "meant"),
    [
        ("", "backbon", "backbone"),
        ("", "vocabulary", "vocab"),
        ("backbone", "expert", "experts"),
        ("backbone", "kvheads", "kv_heads"),
        ("backbone", "rope_teta", "rope_theta"),
        ("vae", "scale_factor", "scaling_factor"),
        ("decoder", "refiner_layer", "refiner_layers"),
        ("sampling", "guidence", "guidance"),
        ("sampling", "tresholds", "threshold"),
        ("image_tokenizer", "codewidth", "code_width"),
    ],
)
def test_a_typo_names_the_nearest_field_of_its_section(section: str, typo: str, meant: str) -> None:
    data = load_preset("tiny").model_dump()
    (data[section] if section else data)[typo] = 1
    with pytest.raises(ConfigError, match=rf"unknown key '{section + '.' if section else ''}{typo}'; .*'{meant}'"):
        validate(ModelConfig, data, "config.yaml")


def test_numbers_with_an_exponent_are_numbers() -> None:
    text = dump(load_preset("tiny")).replace("norm_eps: 1.0e-06", "norm_eps: 1e-6")
    assert "norm_eps: 1e-6" in text
    assert parse(ModelConfig, text, "x").backbone.norm_eps == 1e-6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1", "not valid YAML"),
        (b"- 1", "must hold a mapping"),
        (b"", "must hold a mapping"),
        (b"\xff\xfe\xfa", "cannot be read"),
        (b"!!python/object/apply:os.system ['touch /tmp/canary']", "not valid YAML"),
        (b"[" * 3000, "not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as error:
        load_config(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("backbone", {"kv_heads": 4}, "not a multiple of kv_heads"),
        ("backbone", {"groups": 3}, "not a multiple of groups"),
        ("backbone", {"chosen_experts": 7}, "fewer than chosen_experts"),
        ("vocab", {"size": 3000}, "image_offset"),
        ("sampling", {"steps": -3}, "sampling.steps"),
        ("sampling", {"grid": [0, 8]}, "sampling.grid"),
        ("sampling", {"guidance": float("nan")}, "sampling.guidance"),
        ("sampling", {"temperature": -1.0}, "sampling.temperature"),
        ("sampling", {"solver_shift": 0.0}, "sampling.solver_shift"),
    ],
)
def test_numbers_that_contradict_each_other_or_cannot_be_are_refused(
    section: str, change: dict[str, object], said: str
) -> None:
    data = load_preset("tiny").model_dump()
    data[section] |= change
    with pytest.raises(ConfigError, match=said):
        validate(ModelConfig, data, "config.yaml")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_preset("tiny").name = "other"
