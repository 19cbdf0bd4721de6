"""What fewer bits cost: relative error of the scores, and how often the likeliest token stays the same.

    python benchmarks/quantization.py [PROMPTS]     writes docs/quantization.md

On the shipped model: the first look at an answer's block (a description of a picture) and at a picture's blocks, all of
their positions masked. On one layer of the official size with random weights: relative error of its output.
"""

import copy
import sys
from pathlib import Path

import torch
from torch import nn

from unveil import Uni
from unveil.config import load_preset
from unveil.diffusion.blocks import visible_block_causal
from unveil.evals.play import draw, items
from unveil.model.backbone.layer import Layer
from unveil.model.hold import Precision, floats_of, format_of, hold, quantize
from unveil.model.layers.rotary import rotary_tables
from unveil.pipeline.inputs import tokenize
from unveil.scenes.describe import DESCRIBE
from unveil.shapes import Float, Int, Tensor
from unveil.vocab.prompt import Prompts

OUT = Path(__file__).parents[1] / "docs" / "quantization.md"
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float16", "int8", "int4")
TOKENS = 256


def lines(uni: Uni, count: int) -> list[tuple[Int[Tensor, "1 L"], int]]:
    """Prompts of the training split, each followed by masked positions, and how many those are."""
    given, parts = items("caption", count, "train"), uni.parts
    prompts = Prompts(parts.text, parts.layout)
    codes = tokenize(parts, [draw(item.sources[0]) for item in given])
    asked = [prompts.understand(c, DESCRIBE) for c in codes]
    drawn = [prompts.generate(i.prompt, *parts.config.sampling.grid) for i in items("t2i_two", count, "train")]
    size, mask = parts.config.backbone.block_size, parts.layout.mask
    rows, columns = parts.config.sampling.grid
    wanted = [(ids, size - len(ids) % size) for ids in asked] + [(ids, rows * columns) for ids in drawn]
    return [(torch.tensor([[*ids, *[mask] * n]]), n) for ids, n in wanted]


@torch.inference_mode()
def scores(uni: Uni, looks: list[tuple[Int[Tensor, "1 L"], int]]) -> Float[Tensor, "N V"]:
    """Scores of all masked positions."""
    backbone, size = uni.parts.backbone, uni.parts.config.backbone.block_size
    out = []
    for ids, masked in looks:
        line = torch.arange(ids.shape[1])
        blocks = line // size
        out.append(backbone(ids, line, visible_block_causal(blocks, blocks), at=slice(-masked, None))[0])
    return torch.cat(out).float()


@torch.inference_mode()
def official_layer() -> dict[Precision, float]:
    """Relative error of one official layer's output, for each precision."""
    config, generator = load_preset("official").backbone, torch.Generator().manual_seed(0)
    layer = Layer(config, dense=False)
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, config.initializer_range, generator=generator)
    layer.mlp.gate.expert_bias.zero_()
    x = torch.randn(1, TOKENS, config.width, generator=generator)
    exact, found = _through(layer, config, x), {}
    for precision in PRECISIONS:
        held = nn.ModuleList([copy.deepcopy(layer)])
        hold(held, floats_of(precision))
        form = format_of(precision)
        if form is not None:
            quantize(held, form)
        made = _through(held[0], config, x.to(floats_of(precision)))
        found[precision] = error(made.float() - x, exact - x)
    return found


def _through(layer: nn.Module, config, x: Float[Tensor, "1 L D"]) -> Float[Tensor, "1 L D"]:
    dims = int(config.head_dim * config.rotary_fraction)
    cos, sin = rotary_tables(torch.arange(TOKENS)[None], dims, config.rope_theta, x.dtype)
    blocks = torch.arange(TOKENS) // config.block_size
    return layer(x, (cos[:, None], sin[:, None]), visible_block_causal(blocks, blocks)[None, None], None)[0]


def error(made: Tensor, exact: Tensor) -> float:
    """|made - exact| / |exact|."""
    return float((made - exact).norm() / exact.norm())


def main(count: int) -> str:
    """The table."""
    exact = Uni.load("tiny", "cpu", "float32")
    looks = lines(exact, count)
    wanted, layer = scores(exact, looks), official_layer()
    rows = [
        f"PyTorch {torch.__version__} on a CPU, weights `{exact.weights}`; {count} pictures to describe and {count} to",
        f"draw of the training split, {len(wanted)} masked positions; the official layer has random weights and sees",
        f"{TOKENS} random tokens.",
        "`python benchmarks/quantization.py` made this.",
        "",
        "| precision | error of the scores | same likeliest token | error of what an official layer adds |",
        "|---|---|---|---|",
    ]
    for precision in PRECISIONS:
        made = scores(Uni.load("tiny", "cpu", precision), looks)
        same = float((made.argmax(-1) == wanted.argmax(-1)).float().mean())
        rows.append(f"| {precision} | {error(made, wanted):.2%} | {same:.1%} | {layer[precision]:.2%} |")
    return "# What fewer bits cost\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    OUT.write_text(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50), encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))
