"""Make the pictures and numbers of docs/canvases.md with the shipped weights: `python docs/canvases.py [N]`.

N is the number of edits that are scored with and without a mask; they come from the training split, far behind what is
trained on. Held-out items are for `unveil eval scenes` alone.
"""

import re
import sys
from pathlib import Path

import numpy as np
from pictures import sheet
from PIL import Image, ImageOps

from unveil import Uni
from unveil.evals.pareto import FIRST
from unveil.evals.play import draw, read
from unveil.pipeline.preview import Preview
from unveil.scenes.change import Edit, judge_edit
from unveil.scenes.describe import describe
from unveil.scenes.example import example
from unveil.scenes.scene import Scene, Thing

HERE = Path(__file__).parent
SCENE = Scene(
    "white",
    (
        Thing(0, 0, "star", "red", "large"), Thing(1, 2, "fish", "blue", "large"),
        Thing(3, 1, "tree", "green", "small"),
    ),
)  # fmt: skip


def cells(*lattice: tuple[int, int]) -> np.ndarray:
    """A mask of lattice cells: each is 2x2 codes."""
    small = np.zeros((4, 4), dtype=bool)
    for row, column in lattice:
        small[row, column] = True
    return small.repeat(2, 0).repeat(2, 1)


def marked(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The picture with its open cells shaded."""
    shade = np.kron(mask, np.ones((picture.height // mask.shape[0],) * 2))[..., None]
    pixels = np.asarray(picture).astype(float)
    return Image.fromarray((pixels * (1 - 0.5 * shade) + 0.5 * shade * np.array([90, 90, 120])).astype(np.uint8))


def edits(uni: Uni) -> None:
    """One picture of three things, changed with and without a mask."""
    source, rows = draw(SCENE), []
    for words, mask in (
        ("make the star green", cells((0, 0))),
        ("remove the fish", cells((1, 2))),
        ("make the tree large", cells((3, 1))),
    ):
        inside = uni.edit_image(source, words, mask=mask, seed=3).image
        rows += [(marked(source, mask), words), (inside, "with the mask")]
        rows += [(uni.edit_image(source, words, seed=3).image, "without")]
    save(rows, 3, "masked-edits.png")


def variations(uni: Uni) -> None:
    """The half of a drawn picture that is empty drawn anew, and more canvas around it."""
    first = uni.generate_image("a large red star on white", seed=7)
    columns = (0, 1) if any(thing.col > 1 for thing in read(first.image).things) else (2, 3)
    empty, words = (
        cells(*[(row, column) for row in range(4) for column in columns]),
        "a red star and a green tree on white",
    )
    rows = [(marked(first.image, empty), "a large red star on white")]
    for seed in (1, 2):
        rows.append((uni.generate_image(words, codes=first, vary=empty, seed=seed).image, f"{words}, seed {seed}"))
    wide = uni.generate_image("a large red star on white", codes=first, width=192, at=(0, 2), seed=1).image
    rows.append((ImageOps.pad(wide, (128, 128), color=(235, 235, 235)), "12 codes wide: more around it"))
    save(rows, 4, "varied.png")


def previews(uni: Uni) -> None:
    """A picture on its way as patches, a partial rendering, and the picture."""
    parts = list(uni.stream_image(lambda u: u.generate_image("a large red star on white", seed=7)))
    shown = [part for part in parts if isinstance(part, Preview)]
    early, late = shown[len(shown) // 3], shown[-1]
    rows = [(early.image, "a third of the steps"), (uni.render(early.guess, seed=7), "the same, rendered")]
    rows += [(late.image, "all codes, as patches"), (parts[-1].image, "the picture")]
    save(rows, 4, "previews.png")


def words(uni: Uni) -> list[str]:
    """What is said with choices and with blanks."""
    source, truth = draw(SCENE), describe(SCENE)
    first = truth.split(" ")[2]
    gapped = truth.replace(f" {first} ", " ___ ", 1)
    question, choices = "what color is the star?", ["a dark red", "light blue"]
    answers = [uni.understand_image(source, question, choices=some).text for some in ((), choices)]
    return [
        f'infill("{gapped}", image=...)',
        f"    {uni.infill(gapped, image=source).text}",
        'infill("The ___ is red.")',
        f"    {uni.infill('The ___ is red.').text}",
        f'understand_image(..., "{question}")',
        f"    {answers[0]}",
        f'understand_image(..., "{question}", choices={choices})',
        f"    {answers[1]}",
    ]


def scores(uni: Uni, n: int) -> list[str]:
    """How often an edit is done and everything else kept, with a mask of the cells it may touch and without."""
    found, index = {"without a mask": [], "with a mask": []}, FIRST
    while len(found["with a mask"]) < n:
        item, index = example("edit", index, "train"), index + 1
        edit = item.judge
        assert isinstance(edit, Edit)
        if edit.before.background == edit.after.background:
            for name, mask in (("without a mask", None), ("with a mask", cells(*edit.touched))):
                result = uni.edit_image(draw(edit.before), item.prompt, mask=mask, seed=index).image
                found[name].append(judge_edit(edit, read(result)))
    lines = [f"{n} edits, weights `{uni.weights}`", "", "| | asked change done | everything else kept | both |"]
    lines.append("|---|---|---|---|")
    for name, verdicts in found.items():
        shares = [
            sum(kind(v) for v in verdicts) / n
            for kind in (lambda v: v.done, lambda v: v.kept, lambda v: v.done and v.kept)
        ]
        lines.append(f"| {name} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return lines


def save(rows: list[tuple[Image.Image, str]], columns: int, name: str) -> None:
    """A sheet of pictures with their labels."""
    sheet([picture for picture, _ in rows], [label for _, label in rows], columns).save(HERE / "pictures" / name)


def main(n: int) -> None:
    """Write the pictures, and put words and scores between their markers in canvases.md."""
    uni = Uni.load()
    edits(uni)
    variations(uni)
    previews(uni)
    page = HERE / "canvases.md"
    text = page.read_text(encoding="utf-8")
    for marker, lines in (("words", ["```", *words(uni), "```"]), ("scores", scores(uni, n))):
        block = "\n".join(lines)
        found = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end of {marker} -->)", re.DOTALL)
        text = found.sub(lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
