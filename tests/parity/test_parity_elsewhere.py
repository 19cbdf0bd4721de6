"""Directories recorded here from models of other sizes, ids and names: nothing rests on those of the given ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unveil.config import load_preset
from unveil.diffusion import solver
from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.model.backbone import Backbone
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.sampling import Loop, Policy, Quota, generate_codes, generate_text
from unveil.sampling.render import conditioned_field, render
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts
from unveil.vocab.text import Text
from unveil.weights.names import to_official
from unveil.weights.official_config import (
    official_config,
    official_decoder,
    official_image_tokenizer,
    official_vae,
)

GOLDEN = Path(__file__).parents[1] / "golden"
NEAR = "relative 1e-4 of the tensor's max abs value"


def randomize(module: nn.Module, seed: int, deviation: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation)


def save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file)


def write(path: Path, manifest: Any, arrays: dict[str, torch.Tensor]) -> None:
    (path / "manifest.json").write_text(json.dumps(manifest))
    narrow = {name: t.int() if t.dtype == torch.int64 else t for name, t in arrays.items()}
    save(narrow, path / "goldens.safetensors")


def edited(file: Path, target: Path, **changes: Any) -> None:
    """A JSON file with other values for these keys, at whatever depth they lie."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changes[key] if key in changes else changed(inner) for key, inner in value.items()}
        return value

    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(changed(json.loads(file.read_text()))))


@pytest.fixture(scope="module")
def backbone_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of another width, a tokenizer trained here, 40 codes, blocks of 6; five cases under made-up names."""
    path = tmp_path_factory.mktemp("other") / "backbone-Z"
    checkpoint = path / "checkpoint"
    checkpoint.mkdir(parents=True)
    text = Text.train(["a dog and a hill, the sea and the sun; seven ships sail home in the sea mist"], bpe_size=270)
    text.save(checkpoint / "tokenizer.json")
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "moe_intermediate_size": 24, "vocab_size": text.size + 40, "image_token_offset": text.size,
        "pad_token_id": text.token_id("<|endoftext|>"), "rope_theta": 10000.0, "routed_scaling_factor": 1.5,
    }  # fmt: skip
    edited(GOLDEN / "backbone-A/checkpoint/config.json", checkpoint / "config.json", **sizes)
    config, vocab = official_config(checkpoint, text)
    network = Backbone(config, vocab).initialize(torch.Generator().manual_seed(5))
    network.lm_head.weight.data.mul_(40)  # else all ids are about equally likely
    network.eval().requires_grad_(False)
    save(to_official(network.state_dict()), checkpoint / "model.safetensors")
    layout = Layout.of(vocab, text)
    prompts, arrays, cases = Prompts(text, layout, spell_sizes=True), dict[str, torch.Tensor](), list[Any]()

    def record(name: str, kind: str, params: Any, inputs: Any, outputs: Any, tolerance: Any) -> None:
        given = {"inputs": {k: f"{name}/{k}" for k in inputs}, "outputs": {k: f"{name}/{k}" for k in outputs}}
        cases.append({"name": name, "kind": kind, "what": "", "params": params, "tolerance": tolerance, **given})
        arrays.update({f"{name}/{key}": torch.as_tensor(value) for key, value in {**inputs, **outputs}.items()})

    ids = torch.randint(0, vocab.size, (2, 21), generator=torch.Generator().manual_seed(6))
    blocks = block_of(torch.arange(21), 6)
    mask = visible_block_causal(blocks, blocks).expand(2, 1, 21, 21)
    logits = network(ids, torch.arange(21), mask)
    record("walrus", "forward", {"block": 6}, {"input_ids": ids, "mask": mask}, {"logits": logits}, {"logits": NEAR})
    hidden = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(7))
    gate = network.model.layers[1].mlp.gate
    chosen = gate(hidden[0]).chosen.sort(-1).values
    record("heron", "router", {"layer": 1}, {"hidden": hidden}, {"idx_sorted": chosen}, {"idx_sorted": "exact"})
    sampling = {"temperature": 0.0, "block_length": 6, "steps": 3, "threshold": 0.7}
    policy = Policy(Quota(0.7, 3), 6, official=True)
    asked = text.encode("the sea and seven")
    row = generate_text(Loop(network, layout), [asked], layout, tokens=17, policy=policy)[0]
    own = {"gen_length": 17, "mask_id": layout.mask, "eos_id": layout.pad}
    record("otter", "text", {**sampling, **own}, {"prompt": asked}, {"ids": [*asked, *row]}, {"ids": "exact"})
    prompt, nothing = prompts.generate("a dog", 3, 5), prompts.generate_unconditional(3, 5)
    codes = generate_codes(Loop(network, layout), [prompt], layout, grid=(3, 5), policy=policy)[0].flatten()
    phase = {"call": "generate_bd_image", "params": {**sampling, "gen_length": 15, "cfg_scale": 1.0}}
    arguments = {"prompt": "a dog", "image_h": 96, "image_w": 160}
    call = {"call": "generate_image", "arguments": arguments, "phases": [phase], "result": {"h": 3, "w": 5}}
    inputs = {"phase0_input_ids": prompt, "phase0_uncond_ids": nothing}
    outputs = {"phase0_ids": [*prompt, *(codes + layout.image_offset).tolist()], "token_ids": codes}
    record("lynx", "high_level", call, inputs, outputs, {"*": "exact"})
    piece = "<role>HUMAN</role>seven ships"
    pieces = [{"text": piece, "ids": text.encode_template(piece), "back": "HUMANseven ships"}]
    record("mole", "tokenizer", {"pieces": pieces}, {}, {}, {"*": "exact"})
    write(path, {"about": "made in a test", "ids": {"mask": layout.mask}, "cases": cases}, arrays)
    return path


@pytest.fixture(scope="module")
@torch.no_grad()
def image_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of 14 pixels, 31 codes, an 8-channel VAE of two levels, other step counts and seeds."""
    path = tmp_path_factory.mktemp("other") / "image-Z"
    checkpoint, source = path / "checkpoint", GOLDEN / "image-A/checkpoint"
    tokenizer = {
        "hidden_size": 24, "intermediate_size": 40, "depth": 2, "num_heads": 2, "patch_size": 14, "image_size": 84,
        "num_embeddings": 31, "embed_dim": 10, "latent_channels": 24,
    }  # fmt: skip
    for name in ("config.json", "preprocessor_config.json"):
        edited(source / "image_tokenizer" / name, checkpoint / "image_tokenizer" / name, **tokenizer)
    decoder = {"dim": 40, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 22}
    decoder |= {"axes_dims": [4, 8, 8], "axes_lens": [512, 96, 96], "in_channels": 8}  # type: ignore[dict-item]
    for kind in ("decoder", "decoder-turbo"):
        edited(source / kind / "config.json", checkpoint / kind / "config.json", **decoder)
    levels = {"block_out_channels": [8, 12, 12, 16], "latent_channels": 8, "layers_per_block": 1, "scaling_factor": 0.5}
    edited(source / "vae/config.json", checkpoint / "vae/config.json", **levels)
    parts = {
        "image_tokenizer": official_image_tokenizer(checkpoint / "image_tokenizer"),
        "decoder": official_decoder(checkpoint / "decoder"),
        "vae": official_vae(checkpoint / "vae"),
    }
    config = load_preset("official").model_copy(update=parts)
    eye, embedding, vae = ImageTokenizer(config.image_tokenizer), CodeEmbedding(config), build_vae(config.vae).eval()
    normal, turbo = ImageDecoder(config.decoder, 8), ImageDecoder(config.decoder, 8)
    for seed, module in enumerate((eye, embedding, vae, normal, turbo)):
        randomize(module, seed)
    torch.save(embedding.state_dict(), checkpoint / "image_tokenizer/sigvq_embedding.pt")
    places = {"image_tokenizer/model": eye, "decoder/model": normal, "decoder-turbo/model": turbo}
    for name, module in {**places, "vae/diffusion_pytorch_model": vae}.items():
        save(module.state_dict(), checkpoint / f"{name}.safetensors")
    codes, generator = [3, 30, 7, 7, 0, 12], torch.Generator().manual_seed(8)
    grid = torch.tensor(codes).view(1, 2, 3)
    features = embedding(grid)
    arrays = {"condition.features": features[0]}
    arrays["ode.z"] = torch.randn(1, 8, 1, 8, 12, generator=generator)
    field = conditioned_field(normal, features, (4, 6), 1.0)
    arrays["ode.out"] = solver.euler(field, arrays["ode.z"][:, :, 0], solver.euler_times(4, 6.0))
    x, f = torch.randn(8, 1, 6, 4, generator=generator), torch.randn(37, 22, generator=generator)
    t = torch.tensor([0.3])
    out = normal(x.transpose(0, 1), t, f[None], (1, 37)).transpose(0, 1)
    arrays |= {f"velocity.pelican.{name}": v for name, v in (("x", x), ("t", t), ("features", f), ("out", out))}
    fixed: dict[str, Any] = {"guidance": 1.0, "shift": 6.0}
    for name, network, steps in (("normal", normal, 3), ("decoder-turbo", turbo, 2)):
        seeded = [torch.Generator().manual_seed(90)]
        few = name == "decoder-turbo"
        arrays[f"picture.{name}"] = render(
            grid, network, embedding, vae, config, solver_steps=steps, generators=seeded, turbo=few, **fixed
        )[0]
    noise = np.random.RandomState(44).randint(0, 255, (42, 70, 3), np.uint8)
    pixels = eye.prepare(torch.from_numpy(noise)[None])
    found, hidden = eye(pixels).codes.flatten().tolist(), eye.vision(pixels)
    arrays |= {"seen.hidden": hidden.flatten(0, 2), "seen.latent": eye.quantizer.project(hidden).permute(0, 3, 1, 2)}
    arrays["seen.pixels"] = pixels.view(1, 3, 3, 14, 5, 14).permute(0, 2, 4, 1, 3, 5).reshape(15, -1)
    row = {"seed": 44, "height": 42, "width": 70, "grid": [1, 3, 5], "codes": found}
    row |= {"pixel_values": "seen.pixels", "hidden": "seen.hidden", "latent": "seen.latent"}
    manifest = {
        "tokenizer": {"what": "", "cases": [row]},
        "condition": {"what": "", "codes": codes, "height": 2, "width": 3, "features": "condition.features"},
        "velocity": {"what": ""},
        "ode": {"what": "Euler, shift 6, guidance 1", "grid_points": 4, "seed": 1},
        "picture": {
            "what": "normal with 3 grid points and turbo with 2 evaluations; z from torch.manual_seed(90)",
            "codes": "condition.codes",
        },
    }
    write(path, manifest, arrays)
    return path


def test_a_backbone_of_other_sizes_ids_and_case_names_passes(backbone_directory: Path, parity: Any) -> None:
    outcome = parity(backbone_directory)
    assert outcome.lines[-1] == "5 passed, 0 failed", outcome.out
    assert outcome.having("passed") == ["walrus", "heron", "otter", "lynx", "mole"] and outcome.code == 0


def test_image_parts_of_other_sizes_pass(image_directory: Path, parity: Any) -> None:
    outcome = parity(image_directory)
    assert outcome.lines[-1] == "5 passed, 0 failed", outcome.out
    assert outcome.code == 0


def test_without_its_turbo_decoder_only_the_case_that_needs_it_fails(
    image_directory: Path, tmp_path: Path, parity: Any
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(image_directory, path)
    shutil.rmtree(path / "checkpoint/decoder-turbo")
    outcome = parity(path)
    assert outcome.having("failed") == ["picture"] and outcome.lines[-1] == "4 passed, 1 failed"
    assert "decoder-turbo" in outcome.out
