"""Image decoder and VAE for diffusers: its classes load them and compute the same; the way back is exact."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from safetensors.torch import load_file, save_file

from unveil.errors import OutputError, RequestError, WeightsError
from unveil.pipeline.place import shipped_models
from unveil.weights.convert import convert
from unveil.weights.official_config import DecoderKind
from unveil.weights.official_model import load_official
from unveil.weights.verify import verify

FILES = ("decoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors")


def unheard(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def theirs(released_directory: Path, tmp_path: Path) -> Path:
    """Decoder and VAE of the released directory in the layout of diffusers."""
    convert(released_directory, tmp_path / "theirs", "diffusers-decoder", unheard)
    return tmp_path / "theirs"


def test_the_classes_of_diffusers_load_it_and_compute_what_ours_do(theirs: Path, released_directory: Path) -> None:
    parts = load_official(released_directory)
    decoder = ZImageTransformer2DModel.from_pretrained(theirs / "transformer")
    vae = AutoencoderKL.from_pretrained(theirs / "vae")
    channels = vae.config.latent_channels
    latents, codes = torch.randn(1, channels, 8, 8), torch.randn(1, 16, parts.config.decoder.condition_width)
    with torch.no_grad():
        ours = parts.decoder(latents, torch.tensor([0.3]), codes, (4, 4))[0]
        other = decoder([latents[0][:, None]], torch.tensor([0.3]), [codes[0]], return_dict=False)[0][0][:, 0]
        assert torch.equal(vae.decode(latents).sample, parts.vae.decode(latents).sample)
    assert ours.abs().max() > 1 and (ours - other).abs().max() < 1e-5 * ours.abs().max()


@pytest.mark.parametrize("decoder", ["normal", "turbo"])
def test_there_and_back_is_every_tensor_bit_for_bit(
    released_directory: Path, tmp_path: Path, decoder: DecoderKind
) -> None:
    convert(released_directory, tmp_path / "theirs", "diffusers-decoder", unheard, decoder=decoder)
    convert(tmp_path / "theirs", tmp_path / "back", "official", unheard, decoder=decoder)
    directory = "decoder-turbo" if decoder == "turbo" else "decoder"
    for name in (FILES[0].replace("decoder", directory), FILES[1]):
        assert (tmp_path / "back" / name).read_bytes() == (released_directory / name).read_bytes()
    whole = Path(shutil.copytree(released_directory, tmp_path / "whole"))
    for part in (directory, "vae"):
        shutil.copy(tmp_path / "back" / part / "config.json", whole / part / "config.json")
    assert load_official(whole, decoder=decoder).config == load_official(released_directory, decoder=decoder).config
    assert verify(tmp_path / "theirs", unheard) == (4, [])


def test_a_model_of_our_own_layout_gives_the_same_files(theirs: Path, released_directory: Path, tmp_path: Path) -> None:
    convert(released_directory, tmp_path / "ours", "unveil", unheard)
    convert(tmp_path / "ours", tmp_path / "again", "diffusers-decoder", unheard)
    names = {f.relative_to(theirs) for f in theirs.rglob("*") if f.is_file()}
    assert len(names) == 5 and all((tmp_path / "again" / n).read_bytes() == (theirs / n).read_bytes() for n in names)


def test_only_the_embedder_of_the_condition_has_another_name(theirs: Path, released_directory: Path) -> None:
    ours = set(load_file(released_directory / FILES[0]))
    other = set(load_file(theirs / "transformer/diffusion_pytorch_model.safetensors"))
    assert {n.split(".")[0] for n in ours - other} == {"semantic_embedder"}
    assert {n.split(".")[0] for n in other - ours} == {"cap_embedder"} and len(other) == len(ours)


def test_what_diffusers_cannot_say_and_what_is_no_model_are_refused(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"diffusers has no decoder\.\w+.*; this decoder stays here"):
        convert(shipped_models()["tiny"], tmp_path / "t", "diffusers-decoder", unheard)
    with pytest.raises(RequestError, match="no whole model; choose --layout official"):
        convert(theirs, tmp_path / "t", "unveil", unheard)
    with pytest.raises(RequestError, match="is in the diffusers-decoder layout already"):
        convert(theirs, tmp_path / "t", "diffusers-decoder", unheard)
    with pytest.raises(OutputError, match="is there already"):
        convert(theirs, theirs, "official", unheard)
    file = theirs / "transformer/diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["x_pad_token"]
    save_file(state | {"extra": torch.zeros(2)}, file)
    with pytest.raises(WeightsError) as caught:
        convert(theirs, tmp_path / "t", "official", unheard)
    assert f"{file}: x_pad_token is missing, expected 1x32; {file}: extra 2 is not expected" in str(caught.value)
    assert not (tmp_path / "t").exists()
