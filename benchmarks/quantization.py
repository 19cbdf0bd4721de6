"""What fewer bits cost: relative error of the scores, and how often the likeliest token stays the same.

    python benchmarks/quantization.py [--items 20] [--write]

On the shipped model: the first look at an answer's block (a description of a picture) and at a picture's blocks, all of
their positions masked, for items of the training split. On layers of the official sizes with random weights, where no
trained ones are: relative error of what a layer adds to its input. `--write` puts both tables into docs/benchmarks.md.
"""

import argparse
import copy
import sys

import torch
from document import machine, put
from torch import nn

from unveil.config import load_preset
from unveil.diffusion.blocks import visible_block_causal
from unveil.evals.play import draw, items
from unveil.model.backbone.layer import Layer
from unveil.model.hold import Precision, floats_of, format_of, hold, quantize
from unveil.model.layers.rotary import rotary_tables
from unveil.pipeline import Uni
from unveil.pipeline.inputs import tokenize
from unveil.scenes.describe import DESCRIBE
from unveil.shapes import Float, Int, Tensor
from unveil.vocab.prompt import Prompts

PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float16", "int8", "fp8", "int4")
TOKENS = 64


def looks(uni: Uni, count: int) -> list[tuple[Int[Tensor, "1 L"], int]]:
    """Lines of ids that end in masked positions, and how many those are: descriptions to write, pictures to draw."""
    parts, shown = uni.parts, items("caption", count, "train")
    prompts, grid = Prompts(parts.text, parts.layout), parts.config.sampling.grid
    codes = tokenize(parts, [draw(item.sources[0]) for item in shown])
    told = [prompts.understand(picture, DESCRIBE) for picture in codes]
    drawn = [prompts.generate(item.prompt, *grid) for item in items("t2i_two", count, "train")]
    size = parts.config.backbone.block_size
    masked = [(ids, size - len(ids) % size) for ids in told] + [(ids, grid[0] * grid[1]) for ids in drawn]
    return [(torch.tensor([[*ids, *[parts.layout.mask] * new]]), new) for ids, new in masked]


@torch.inference_mode()
def scores(uni: Uni, seen: list[tuple[Int[Tensor, "1 L"], int]]) -> Float[Tensor, "N V"]:
    """Scores of all masked positions."""
    backbone, size = uni.parts.backbone, uni.parts.config.backbone.block_size
    out = []
    for ids, masked in seen:
        line = torch.arange(ids.shape[1])
        visible = visible_block_causal(line // size, line // size)
        out.append(backbone(ids, line, visible, at=slice(-masked, None))[0])
    return torch.cat(out).float()


@torch.inference_mode()
def layer_errors(*, dense: bool) -> list[float]:
    """Relative error of what one official layer adds, for each precision; its weights are numbers of bfloat16."""
    config, generator = load_preset("official").backbone, torch.Generator().manual_seed(0)
    layer = Layer(config, dense=dense)
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, config.initializer_range, generator=generator)
    layer = layer.bfloat16().float().eval()
    x = torch.randn(1, TOKENS, config.width, generator=generator).bfloat16().float()
    exact, found = added(layer, x), []
    layer.bfloat16()
    for precision in PRECISIONS:
        note(f"one official layer, {'dense' if dense else 'of experts'}, in {precision}")
        held = nn.ModuleList([copy.deepcopy(layer)])
        hold(held, floats_of(precision))
        if (form := format_of(precision)) is not None:
            quantize(held, form)
        found.append(error(added(held[0], x.to(floats_of(precision))).float(), exact))
    return found


def added(layer: Layer, x: Float[Tensor, "1 L D"]) -> Float[Tensor, "1 L D"]:
    """What a layer adds to its input, in one block-causal line."""
    config = load_preset("official").backbone
    dims = int(config.head_dim * config.rotary_fraction)
    line = torch.arange(TOKENS)
    cos, sin = rotary_tables(line[None], dims, config.rope_theta, x.dtype)
    blocks = line // config.block_size
    return layer(x, (cos[:, None], sin[:, None]), visible_block_causal(blocks, blocks)[None, None], None)[0] - x


def error(made: Tensor, exact: Tensor) -> float:
    """|made - exact| / |exact|."""
    return float((made - exact).norm() / exact.norm())


def note(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20, help="pictures to describe, and as many to draw")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    given = parser.parse_args()
    uni = Uni.load("tiny", "cpu", "float32")
    seen = looks(uni, given.items)
    exact = scores(uni, seen)
    errors = [layer_errors(dense=True), layer_errors(dense=False)]
    rows = [
        f"`python benchmarks/quantization.py --items {given.items}` on {machine()}.",
        f"`tiny` is `{uni.weights}`: {given.items} pictures to describe, {given.items} to draw, {len(exact)} masked",
        f"positions. Each official layer sees {TOKENS} random tokens. All against float32.",
        "",
        "| precision | tiny: error of scores | tiny: same token | dense layer: error | layer of experts: error |",
        "|---|---|---|---|---|",
    ]
    for k, precision in enumerate(PRECISIONS):
        note(f"tiny in {precision}")
        made = scores(Uni.load("tiny", "cpu", precision), seen)
        same = float((made.argmax(-1) == exact.argmax(-1)).float().mean())
        layers = " | ".join(f"{column[k]:.2%}" for column in errors)
        rows.append(f"| {precision} | {error(made, exact):.2%} | {same:.1%} | {layers} |")
    print("\n".join(rows))
    if given.write:
        put("fewer bits", "\n".join(rows))


if __name__ == "__main__":
    main()
