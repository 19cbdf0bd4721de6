"""A trace as an animated GIF: masked cells dark with a dot that grows with confidence, committed cells in color."""

import io
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from unveil.trace.record import Cell, Stage, Trace

WIDTH, MARGIN, CAPTION = 384, 12, 28
_LINE, _GLYPH = 22, 15
_MILLISECONDS, _HOLD, _MAX_MOMENTS = 220, 2500, 240
_PAPER, _INK, _MASKED, _DOT, _FRESH = (24, 24, 28), (235, 235, 235), (52, 52, 60), (150, 150, 165), (255, 210, 60)


def to_gif(trace: Trace) -> bytes:
    """All stages one after another, each held at its end; a picture is shown whole when its codes are there."""
    frames, times = list[Image.Image](), list[int]()
    height = MARGIN + CAPTION + max(_height(stage) for stage in trace.stages)
    for stage in trace.stages:
        for frame in _stage_frames(stage, height):
            frames.append(frame)
            times.append(_MILLISECONDS)
        times[-1] = _HOLD
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=False)
    return out.getvalue()


def _height(stage: Stage) -> int:
    """Pixels that the canvas of a stage needs."""
    if stage.grid is None:
        return (_places(stage.labels)[-1][1] if stage.labels else 0) + _LINE + MARGIN
    return _side(stage.grid) * stage.grid[0] + MARGIN


def _side(grid: tuple[int, int]) -> int:
    """Pixels of a cell."""
    return max((WIDTH - 2 * MARGIN) // max(grid), 1)


def _stage_frames(stage: Stage, height: int) -> Iterator[Image.Image]:
    moments = list(stage.moments())
    stride = -(-len(moments) // _MAX_MOMENTS)
    for number, cells in enumerate(moments):
        if number % stride and number != len(moments) - 1:
            continue
        frame = Image.new("RGB", (WIDTH, height), _PAPER)
        pen = ImageDraw.Draw(frame)
        done = sum(cell.token is not None for cell in cells)
        what = "words" if stage.grid is None else "picture"
        caption = f"{what}: denoise step {number}, {done} of {len(cells)} committed"
        pen.text((MARGIN, MARGIN // 2), caption, _INK, ImageFont.load_default(13))
        if stage.grid is None:
            _draw_words(pen, stage, cells)
        else:
            _draw_cells(pen, stage, cells)
        yield frame
    if stage.picture is not None and stage.grid is not None:
        yield _whole(stage.picture, stage.grid, height)


def _whole(picture: Image.Image, grid: tuple[int, int], height: int) -> Image.Image:
    """The finished picture where its cells were."""
    frame = Image.new("RGB", (WIDTH, height), _PAPER)
    ImageDraw.Draw(frame).text((MARGIN, MARGIN // 2), "rendered", _INK, ImageFont.load_default(13))
    side = _side(grid)
    frame.paste(picture.resize((side * grid[1], side * grid[0]), Image.Resampling.BICUBIC), (MARGIN, CAPTION))
    return frame


def _draw_cells(pen: ImageDraw.ImageDraw, stage: Stage, cells: Sequence[Cell]) -> None:
    assert stage.grid is not None
    side = _side(stage.grid)
    for position, (cell, color) in enumerate(zip(cells, stage.colors(), strict=True)):
        x, y = MARGIN + position % stage.grid[1] * side, CAPTION + position // stage.grid[1] * side
        box = (x, y, x + side - 2, y + side - 2) if side > 3 else (x, y, x + side - 1, y + side - 1)
        pen.rectangle(box, _MASKED if cell.token is None else color, _FRESH if cell.fresh else None)
        if cell.token is None and cell.confidence > 0:
            radius = (side - 4) / 2 * min(cell.confidence, 1.0) ** 0.5
            middle = (x + side / 2 - 1, y + side / 2 - 1)
            pen.circle(middle, max(radius, 0.5), _DOT)


def _draw_words(pen: ImageDraw.ImageDraw, stage: Stage, cells: Sequence[Cell]) -> None:
    font = ImageFont.load_default(_GLYPH)
    for label, cell, (x, y) in zip(stage.labels, cells, _places(stage.labels), strict=True):
        wide = _width(label)
        if cell.token is None:
            shade = min(max(cell.confidence, 0.0), 1.0)
            gray = tuple(round(a + (b - a) * shade) for a, b in zip(_MASKED, _DOT, strict=True))
            pen.rectangle((x, CAPTION + y + 2, x + wide - 2, CAPTION + y + _LINE - 4), gray)
        else:
            pen.text((x, CAPTION + y), label, _FRESH if cell.fresh else _INK, font)


def _places(labels: Sequence[str]) -> list[tuple[int, int]]:
    """Where each label begins when they are set in lines, relative to the canvas."""
    places, x, y = list[tuple[int, int]](), MARGIN, 0
    for label in labels:
        wide = _width(label)
        if x + wide > WIDTH - MARGIN and x > MARGIN:
            x, y = MARGIN, y + _LINE
        places.append((x, y))
        x += wide
    return places


def _width(label: str) -> int:
    return max(round(ImageFont.load_default(_GLYPH).getlength(label.replace("\n", " "))), 6)
