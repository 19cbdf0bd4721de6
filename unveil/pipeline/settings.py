"""What a request may ask for, filled up with the model's defaults and checked once, at the door."""

import hashlib
import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Self, TypedDict, TypeVar, get_args

import numpy as np
import torch

from unveil.config import ModelConfig
from unveil.diffusion.guidance import Guidance
from unveil.errors import RequestError
from unveil.metadata import Setting
from unveil.sampling import Draw, Order, Policy, Quota, Sprint
from unveil.sampling.sprint import Rule
from unveil.vocab.grid import check_grid, grid_of_pixels
from unveil.vocab.layout import Layout

T = TypeVar("T")
_MAX_SEED = 2**63 - 1


class PictureOptions(TypedDict, total=False):
    """What can be asked of a picture; what is absent or None is the model's default."""

    num_inference_steps: int | None  # denoise steps per block
    guidance_scale: float | None  # 1 is none; for edits how strongly the instruction counts
    image_guidance_scale: float | None  # edits and stories: how strongly the earlier picture counts
    height: int | None  # pixels
    width: int | None
    solver_steps: int | None
    decoder_guidance: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    threshold: float | None  # positions surer than this do not wait for their turn
    sprint: Rule | None  # approximate: later denoise steps of a block see a pruned prefix; see `Sprint`
    text_keep_ratio: float | None  # with sprint: the share of finished text, and of codes, that is left
    image_keep_ratio: float | None


class TextOptions(TypedDict, total=False):
    """What can be asked of an answer in words; what is absent or None is the model's default."""

    num_inference_steps: int | None  # denoise steps per block
    temperature: float | None
    top_k: int | None
    top_p: float | None
    threshold: float | None
    order: Order | None  # "left_to_right": a sure word waits for those before it
    max_tokens: int | None


Options = TypeVar("Options", PictureOptions, TextOptions)


@dataclass(frozen=True)
class TextSettings:
    """How words are written."""

    steps: int
    threshold: float
    order: Order
    temperature: float
    top_k: int | None
    top_p: float | None
    tokens: int

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise RequestError(f"no order '{self.order}'; there are {' and '.join(get_args(Order))}")
        _whole("the number of denoise steps", self.steps, 1, 10_000)
        _whole("the number of tokens", self.tokens, 1, 1_000_000)
        _check_draw(self.threshold, self.temperature, self.top_k, self.top_p)

    @classmethod
    def of(cls, config: ModelConfig, options: TextOptions, tokens: int | None = None) -> Self:
        """The options, with the model's defaults for what they leave open; `tokens` is another default budget."""
        default = config.sampling
        options = _known(options, TextOptions.__annotations__)
        return cls(
            steps=_or(options.get("num_inference_steps"), default.text_steps),
            threshold=_or(options.get("threshold"), default.text_threshold),
            order=_or(options.get("order"), default.text_order),
            temperature=_or(options.get("temperature"), default.text_temperature),
            top_k=options.get("top_k"),
            top_p=options.get("top_p"),
            tokens=_or(options.get("max_tokens"), _or(tokens, default.text_tokens)),
        )

    def policy(self, block_size: int) -> Policy:
        """The same in the words of the sampling loop."""
        draw = Draw(self.temperature, self.top_k, self.top_p)
        return Policy(Quota(self.threshold, self.steps, self.order), block_size, draw)


@dataclass(frozen=True)
class PictureSettings:
    """How a picture is drawn and rendered. All of it is in the PNG, so all of it can be asked for again."""

    rows: int  # of codes
    columns: int
    steps: int
    guidance: float
    image_guidance: float
    rescale: float
    threshold: float
    temperature: float
    top_k: int | None
    top_p: float | None
    solver_steps: int
    solver_shift: float
    decoder_guidance: float
    whole_blocks: bool
    thinking: bool = False
    turbo: bool = False  # rendered by a decoder that has learned to arrive in a few jumps
    sprint: Rule | None = None
    text_keep_ratio: float | None = None
    image_keep_ratio: float | None = None
    words: TextSettings | None = None  # of a plan or a story: how what stands before the picture is written

    def __post_init__(self) -> None:
        _whole("the number of denoise steps", self.steps, 1, 10_000)
        _whole("the number of solver steps", self.solver_steps, 1 if self.turbo else 2, 10_000)
        for name in ("guidance", "image_guidance", "decoder_guidance"):
            _number(name.replace("_", " "), getattr(self, name), 0, 100)
        _number("rescale", self.rescale, 0, 1)
        _number("solver shift", self.solver_shift, 0.01, 100)
        _check_draw(self.threshold, self.temperature, self.top_k, self.top_p)
        for name in ("whole_blocks", "thinking", "turbo"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} must be True or False, not {getattr(self, name)}")
        _check_sprint(self.sprint, self.text_keep_ratio, self.image_keep_ratio)

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        layout: Layout,
        options: PictureOptions,
        *,
        guidance: float | None = None,
        thinking: bool = False,
    ) -> Self:
        """The options, with the model's defaults for what they leave open; `guidance` is another default.

        Raises RequestError for what cannot be, naming what can.
        """
        default = config.sampling
        options = _known(options, PictureOptions.__annotations__)
        rows, columns = _grid(config, layout, options.get("height"), options.get("width"))
        return cls(
            rows=rows,
            columns=columns,
            steps=_or(options.get("num_inference_steps"), default.steps),
            guidance=_or(options.get("guidance_scale"), _or(guidance, default.guidance)),
            image_guidance=_or(options.get("image_guidance_scale"), default.edit_image_guidance),
            rescale=default.rescale,
            threshold=_or(options.get("threshold"), default.threshold),
            temperature=_or(options.get("temperature"), default.temperature),
            top_k=options.get("top_k"),
            top_p=options.get("top_p"),
            solver_steps=_or(options.get("solver_steps"), default.solver_steps),
            solver_shift=default.solver_shift,
            decoder_guidance=_or(options.get("decoder_guidance"), default.decoder_guidance),
            whole_blocks=default.whole_blocks,
            thinking=thinking,
            turbo=default.solver == "turbo",
            sprint=options.get("sprint"),
            text_keep_ratio=options.get("text_keep_ratio"),
            image_keep_ratio=options.get("image_keep_ratio"),
        )

    @classmethod
    def from_plain(cls, plain: Mapping[str, object], config: ModelConfig, layout: Layout) -> Self:
        """The inverse of `plain`. Raises RequestError for anything it would not give: files can be changed."""
        later = {"turbo", "sprint", "text_keep_ratio", "image_keep_ratio", "words"}  # pictures from before have none
        words = plain.get("words")
        named = words is None or (isinstance(words, Mapping) and set(words) == {f.name for f in fields(TextSettings)})
        if set(plain) | later != {field.name for field in fields(cls)} or not named:
            raise RequestError("the settings were written by another version of unveil; make the picture anew")
        written = TextSettings(**words) if isinstance(words, Mapping) else None
        made = cls(**{**plain, "words": written})  # type: ignore[arg-type]
        if made.turbo != (config.sampling.solver == "turbo"):
            wanted = "turbo" if made.turbo else "normal"
            raise RequestError(f"the picture was rendered by the {wanted} decoder; load the model with that one")
        _whole("rows of codes", made.rows, 1, 255)
        _whole("columns of codes", made.columns, 1, 255)
        _check_grid(config, layout, made.rows, made.columns)
        return made

    def plain(self) -> dict[str, Setting]:
        """All settings as JSON has them."""
        return asdict(self)

    def with_words(self, config: ModelConfig, tokens: int) -> tuple[Self, TextSettings]:
        """The same with words before the picture, and how they are written: by the model's defaults if it says nothing.

        tokens: how many at most, by default.
        """
        words = self.words or TextSettings.of(config, {}, tokens)
        return replace(self, words=words), words

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of codes."""
        return self.rows, self.columns

    @property
    def simple_guidance(self) -> Guidance:
        """Away from the branch without the prompt."""
        return Guidance.simple(self.guidance, self.rescale)

    @property
    def edit_guidance(self) -> Guidance:
        """Away from the branch without the instruction, and from there away from the one without the picture."""
        return Guidance.edit(self.guidance, self.image_guidance, self.rescale)

    def policy(self, block_size: int) -> Policy:
        """The same in the words of the sampling loop."""
        draw = Draw(self.temperature, self.top_k, self.top_p)
        sprint, quota = None, Quota(self.threshold, self.steps)
        if self.sprint is not None:
            text, codes = self.text_keep_ratio, self.image_keep_ratio
            sprint = Sprint(rule=self.sprint, text_keep_ratio=text, image_keep_ratio=codes)
        return Policy(quota, block_size, draw, whole_blocks=self.whole_blocks, sprint=sprint)


@dataclass(frozen=True)
class Streams:
    """The random numbers of one request: one stream for tokens, one for the noise that rendering starts from.

    Apart, so that a picture rendered again from its codes needs none of the draws that chose them. Both live on the
    CPU: a seed means the same on every device.
    """

    tokens: torch.Generator
    noise: torch.Generator

    @classmethod
    def of(cls, seed: int) -> Self:
        """The streams of a seed."""
        return cls(_generator(seed, "tokens"), _generator(seed, "noise"))


def checked_seed(seed: int | None) -> int:
    """The seed, or a fresh one for None. Raises RequestError for one that cannot be."""
    return secrets.randbelow(2**32) if seed is None else _whole("the seed", seed, 0, _MAX_SEED)


def checked_length(length: int) -> int:
    """The tokens of a blank. Raises RequestError for a number that cannot be."""
    return _whole("the length of a blank", length, 1, 1000)


def _known(options: Options, names: Collection[str]) -> Options:
    """The options, numbers of numpy as Python's. Raises TypeError, as Python does, for one that does not exist."""
    unknown = [name for name in options if name not in names]
    if unknown:
        raise TypeError(f"no option named '{unknown[0]}'; there are {', '.join(names)}")
    return {name: value.item() if isinstance(value, np.number) else value for name, value in options.items()}  # type: ignore[return-value]


def _generator(seed: int, name: str) -> torch.Generator:
    mixed = hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(mixed, "little") & _MAX_SEED)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _whole(name: str, value: object, low: int, high: int) -> int:
    """The value if it is a whole number in the range; else RequestError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {value}")
    return int(value)


def _number(name: str, value: object, low: float, high: float) -> float:
    """The value if it is a number in the range; else RequestError."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or not low <= value <= high:  # type: ignore[operator]
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}, not {value}")
    return value  # type: ignore[return-value]


def _check_draw(threshold: object, temperature: object, top_k: object, top_p: object) -> None:
    """Raise RequestError for limits of drawing that would give no numbers."""
    _number("the threshold", threshold, 0, 1e6)
    if temperature != 0 and _number("the temperature", temperature, 0, 100) < 0.01:
        raise RequestError(f"the temperature must be 0, or a number from 0.01 to 100, not {temperature}")
    if top_k is not None:
        _whole("top_k", top_k, 1, 1_000_000)
    if top_p is not None:
        _number("top_p", top_p, 1e-6, 1)


def _check_sprint(rule: object, *ratios: object) -> None:
    """Raise RequestError for a rule that does not exist, and for ratios that are no shares or without a rule."""
    if rule is not None and rule not in get_args(Rule):
        raise RequestError(f"no rule of SPRINT named '{rule}'; there are {', '.join(get_args(Rule))}")
    for name, ratio in zip(("text_keep_ratio", "image_keep_ratio"), ratios, strict=True):
        if ratio is not None:
            _number(name, ratio, 0, 1)
            if rule is None:
                raise RequestError(
                    f"{name} says what SPRINT leaves; choose its rule as well: {', '.join(get_args(Rule))}"
                )


def _grid(config: ModelConfig, layout: Layout, height: int | None, width: int | None) -> tuple[int, int]:
    """Rows and columns of codes for a picture of that many pixels; a side that is not given has the default length."""
    scale, (rows, columns) = config.picture_scale, config.sampling.grid
    sides = (_or(height, rows * scale), _or(width, columns * scale))
    for name, side in zip(("height", "width"), sides, strict=True):
        _whole(f"the {name} in pixels", side, 1, 1_000_000)
    grid = grid_of_pixels(*sides, scale, layout.sizes)
    _check_grid(config, layout, *grid)
    return grid


def _check_grid(config: ModelConfig, layout: Layout, rows: int, columns: int) -> None:
    """Raise RequestError for a grid without size tokens, or beyond what the decoder has positions for."""
    check_grid(rows, columns, layout.sizes)
    longest = min(config.decoder.axes_lens[1:]) // config.decoder.condition_upsample
    if max(rows, columns) > longest:
        limit = longest * config.picture_scale
        raise RequestError(f"a picture of this model is at most {limit} pixels high and wide")
