"""Make the pictures of the README with the shipped weights: `python docs/pictures.py` writes into docs/pictures/."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unveil import Uni
from unveil.trace import encode

HERE = Path(__file__).parent / "pictures"
PROMPTS = (
    "a large red star on white",
    "a small blue fish on cream",
    "a green tree on gray",
    "a yellow moon on black",
    "a pink heart on white",
    "a large purple house on cream",
    "a large red star left of a small blue fish on white",
    "a yellow house and two green trees on gray",
)
EDITS = (
    "make the star green",
    "change the background to black",
    "make the star small",
    "add a small blue fish below the star",
    "move the star one step down",
    "move the star to the top left corner",
    "add a yellow moon",
)


def sheet(pictures: list[Image.Image], labels: list[str], columns: int) -> Image.Image:
    """Pictures in rows, each above its label."""
    width, height = pictures[0].size[0] + 8, pictures[0].size[1] + 30
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * width, rows * height), (235, 235, 235))
    draw = ImageDraw.Draw(page)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * width, i // columns * height
        page.paste(picture, (x + 4, y + 4))
        half = label.rfind(" ", 0, 22) if len(label) > 22 else -1
        text = label if half < 0 else f"{label[:half]}\n{label[half + 1 :]}"
        draw.text((x + 5, y + picture.size[1] + 5), text, fill=(0, 0, 0), font_size=9)
    return page


def main() -> None:
    """Generated pictures, edits of one picture, and one denoising as an animation; seeds are those shown here."""
    HERE.mkdir(exist_ok=True)
    uni = Uni.load()
    drawn = [uni.generate_image(prompt, seed=7) for prompt in PROMPTS]
    sheet([r.image for r in drawn], list(PROMPTS), 4).save(HERE / "generated.png")
    edited = [uni.edit_image(drawn[0].image, words, seed=7).image for words in EDITS]
    asked = uni.understand_image(drawn[0].image, "what color is the star?").text
    sheet([drawn[0].image, *edited], [f"what color is the star? {asked}", *EDITS], 4).save(HERE / "edited.png")
    trace = uni.generate_image(PROMPTS[6], seed=7, trace=True).trace
    assert trace is not None
    (HERE / "denoising.gif").write_bytes(encode(trace, Path("denoising.gif")))
    print(f"weights {uni.weights}: {np.mean([r.seconds for r in drawn]):.2g} s a picture on this machine")


if __name__ == "__main__":
    main()
