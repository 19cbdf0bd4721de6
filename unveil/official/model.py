"""The released model's three calls, with its argument names and defaults, on our one sampling loop."""

from collections.abc import Sequence
from typing import NotRequired, Self, TypedDict

import torch

from unveil.diffusion.guidance import Guidance
from unveil.errors import RequestError
from unveil.model.layers.quantized import QuantizedWeight
from unveil.official.choices import Behavior, Mode, chosen
from unveil.pipeline.draw import spoken
from unveil.pipeline.inputs import check_room, checked_text
from unveil.pipeline.place import check_fp8, choose_device, choose_dtype
from unveil.sampling import Allowed, Draw, Loop, Policy, Quota, Sprint, Stop, Task, think, unmask
from unveil.sampling.sprint import Score
from unveil.shapes import Int, Tensor
from unveil.vocab.grid import grid_of_pixels
from unveil.vocab.prompt import Prompts
from unveil.vocab.text import Text
from unveil.weights.read import Parts, assign
from unveil.weights.tensors import target_dtype

_THRESHOLD, _RESCALE = 0.95, 0.7  # fixed in the released calls


class Drawn(TypedDict):
    """The codes of a picture, row by row; officially fewer than h * w when gen_length is smaller."""

    token_ids: list[int]
    h: int
    w: int
    approximate: bool  # SPRINT was used
    thinking: NotRequired[str]  # the plan in words


class Answer(str):
    """The text of an answer."""

    approximate: bool = False  # SPRINT was used


class Model:
    """The backbone under its released names. Random numbers come from PyTorch's global CPU generator."""

    def __init__(self, parts: Parts, behavior: Behavior = "sane") -> None:
        self.parts = parts
        self.tokenizer: Text = parts.text
        self.behavior: Behavior = chosen("behavior", behavior, Behavior)

    def eval(self) -> Self:
        """Itself: a loaded model is always ready to sample from."""
        return self

    def to(
        self,
        to: str | torch.device | torch.dtype | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Itself, moved to a device or held in another precision; int8, fp8 and int4 stay so."""
        network = self.parts.backbone
        dtype = to if isinstance(to, torch.dtype) else dtype
        device = device if to is None or isinstance(to, torch.dtype) else to
        where = self.parts.device if device is None else choose_device(str(device))
        held = next(network.parameters()).dtype
        precision = held if dtype is None else choose_dtype(dtype)
        quantized = {part.form for part in network.modules() if isinstance(part, QuantizedWeight)}
        if quantized and precision != held:
            raise RequestError(f"quantized weights cannot become {precision}; load the model with that torch_dtype")
        if "fp8" in quantized:
            check_fp8(where)
        state = {
            name: tensor.to(where, tensor.dtype if quantized else target_dtype(name, precision))
            for name, tensor in network.state_dict().items()
        }
        assign(network, state)
        network.requires_grad_(False)
        return self

    def generate_image(
        self,
        prompt: str,
        image_h: int = 1024,
        image_w: int = 1024,
        *,
        steps: int = 16,
        block_length: int = 32,
        cfg_scale: float = 4.0,
        gen_length: int = 1088,
        mode: Mode = "normal",
        thinking_steps: int = 32,
        thinking_gen_length: int = 4096,
        thinking_temperature: float = 0.0,
        thinking_top_p: float | None = None,
        thinking_top_k: int | None = None,
        use_sprint: bool = False,
        remasking: Score = "low_confidence",
        keep_ratio: float = 0.7,
        cache_warmup_steps: int = 2,
        confidence_alpha: float = 0.5,
        image_keep_ratio: float | None = None,
        text_keep_ratio: float | None = None,
    ) -> Drawn:
        """The codes of a picture of image_h by image_w pixels; with mode "thinking" after a plan in words.

        Raises PromptError, RequestError, and GenerationError when a plan comes to no picture.
        """
        h, w = self._grid(image_h, image_w)
        sprint = Sprint(keep_ratio, cache_warmup_steps, confidence_alpha, remasking, image_keep_ratio, text_keep_ratio)
        policy = self._policy(_THRESHOLD, steps, block_length, sprint if use_sprint else None)
        said, prompts, guidance = self._said(prompt, "prompt"), self._prompts, Guidance.simple(cfg_scale, _RESCALE)
        tokens = gen_length if self._official else h * w
        if chosen("mode", mode, Mode) == "normal":
            branches = [prompts.generate_unconditional(h, w)]
            return self._draw(prompts.generate(said, h, w), branches, guidance, (h, w), tokens, policy)
        chance = Draw(thinking_temperature, thinking_top_k or None, thinking_top_p)
        words = self._policy(_THRESHOLD, thinking_steps, block_length, policy.sprint, chance)
        prefix, plan = self._think(prompts.think(said), prompts.header(h, w), thinking_gen_length, words)
        drawn = self._draw(prefix, [prompts.think_unconditional(h, w)], guidance, (h, w), tokens, policy)
        return {**drawn, "thinking": plan}

    def edit_image(
        self,
        image_tokens: Sequence[int],
        image_h: int,
        image_w: int,
        instruction: str,
        *,
        steps: int = 8,
        block_length: int = 32,
        cfg_text_scale: float = 4.0,
        cfg_image_scale: float = 0.0,
        use_sprint: bool = False,
        remasking: Score = "low_confidence",
        keep_ratio: float = 0.7,
        cache_warmup_steps: int = 2,
        confidence_alpha: float = 0.5,
        image_keep_ratio: float | None = None,
        text_keep_ratio: float | None = None,
    ) -> Drawn:
        """The codes of the picture, changed as the instruction says.

        `image_tokens` are its codes with the offset added, image_h by image_w of them.
        """
        codes, prompts = self._picture(image_tokens, image_h, image_w), self._prompts
        said, guidance = (
            self._said(instruction, "instruction"),
            Guidance.edit(cfg_text_scale, cfg_image_scale, _RESCALE),
        )
        sprint = Sprint(keep_ratio, cache_warmup_steps, confidence_alpha, remasking, image_keep_ratio, text_keep_ratio)
        ignored = self._official and len(guidance.used) > 1
        policy = self._policy(_THRESHOLD, steps, block_length, sprint if use_sprint and not ignored else None)
        branches = [prompts.edit_no_text(codes), prompts.edit_no_image(image_h, image_w, said)]
        grid = (image_h, image_w)
        return self._draw(prompts.edit(codes, said), branches, guidance, grid, image_h * image_w, policy)

    def understand_image(
        self,
        image_tokens: Sequence[int],
        image_h: int,
        image_w: int,
        question: str = "",
        *,
        steps: int = 32,
        block_length: int = 32,
        gen_length: int = 2048,
        threshold: float = _THRESHOLD,
        use_sprint: bool = False,
        remasking: Score = "low_confidence",
        keep_ratio: float = 0.7,
        cache_warmup_steps: int = 2,
        confidence_alpha: float = 0.5,
        image_keep_ratio: float | None = None,
        text_keep_ratio: float | None = None,
    ) -> Answer:
        """The answer to a question about a picture; officially it begins with the question itself."""
        codes, prompts = self._picture(image_tokens, image_h, image_w), self._prompts
        sprint = Sprint(keep_ratio, cache_warmup_steps, confidence_alpha, remasking, image_keep_ratio, text_keep_ratio)
        policy = self._policy(threshold, steps, block_length, sprint if use_sprint else None)
        layout = self.parts.layout
        prefix = prompts.understand_bare(codes, question) if self._official else prompts.understand(codes, question)
        task = Task([prefix], gen_length, Allowed.text(layout, self._official), Stop((layout.pad,)))
        new = self._unmask(task, policy)
        if self._official:
            asked = prompts.text.encode(question)
            new = _line(prefix, new, layout.pad)[len(prefix) - len(asked) :]
        answer = Answer(self.tokenizer.decode(new))
        answer.approximate = policy.sprint is not None
        return answer

    @property
    def _official(self) -> bool:
        return chosen("behavior", self.behavior, Behavior) == "official"

    @property
    def _prompts(self) -> Prompts:
        """Officially a user's words may hold control tokens, and a side without a size token is spelled."""
        found = self.tokenizer
        text = Text(found.parsing, found.parsing) if self._official else found
        return Prompts(text, self.parts.layout, spell_sizes=self._official)

    def _said(self, text: str, what: str) -> str:
        return text if self._official else checked_text(text, what)

    def _grid(self, image_h: int, image_w: int) -> tuple[int, int]:
        """Rows and columns of codes; officially pixels are rounded down."""
        scale = self.parts.config.picture_scale
        if self._official:
            return image_h // scale, image_w // scale
        return grid_of_pixels(image_h, image_w, scale, self.parts.layout.sizes)

    def _picture(self, image_tokens: Sequence[int], h: int, w: int) -> Int[Tensor, "h w"]:
        offset, end = self.parts.layout.image_offset, self.parts.layout.size
        ids = torch.tensor(image_tokens, dtype=torch.long)
        if h < 1 or w < 1 or ids.shape != (h * w,):
            raise RequestError(f"a picture of {h}x{w} codes needs {h * w} image_tokens, not {ids.numel()}")
        if int(ids.min()) < offset or int(ids.max()) >= end:
            raise RequestError(f"image_tokens must lie in {offset}..{end - 1}: add the offset {offset} to the codes")
        return ids.view(h, w) - offset

    def _policy(
        self, threshold: float, steps: int, block_length: int, sprint: Sprint | None, chance: Draw | None = None
    ) -> Policy:
        chance = Draw() if chance is None else chance
        return Policy(Quota(threshold, steps), block_length, chance, official=self._official, sprint=sprint)

    def _think(self, asked: list[int], header: list[int], tokens: int, policy: Policy) -> tuple[list[int], str]:
        """The prefix of the picture, and the plan in words."""
        self._check_room(asked, tokens)
        plan = think(
            Loop(self.parts.backbone, self.parts.layout, self.parts.device),
            [asked],
            self.parts.layout,
            header=header,
            tokens=tokens,
            policy=policy,
            generators=[torch.default_generator],
        )[0]
        said = self.tokenizer.decode(plan.prefix[len(asked) : -1])
        return plan.prefix, said if self._official else spoken(self.parts, plan.words)

    def _draw(
        self,
        prefix: list[int],
        branches: list[list[int]],
        guidance: Guidance,
        grid: tuple[int, int],
        tokens: int,
        policy: Policy,
    ) -> Drawn:
        layout, (h, w) = self.parts.layout, grid
        allowed = Allowed.codes(layout, self._official)
        new = self._unmask(Task([prefix], tokens, allowed, Stop(), [[b] for b in branches], guidance), policy)
        codes = [token - layout.image_offset for token in new[: h * w]]
        return {"token_ids": codes, "h": h, "w": w, "approximate": policy.sprint is not None}

    def _unmask(self, task: Task, policy: Policy) -> list[int]:
        self._check_room(task.prompts[0], task.tokens)
        where, random = self.parts.device, [torch.default_generator]
        return unmask(self.parts.backbone, task, policy, self.parts.layout, generators=random, device=where)[0]

    def _check_room(self, prefix: Sequence[int], tokens: int) -> None:
        """Officially nothing keeps a request from exceeding the context."""
        if not self._official:
            check_room(prefix, tokens, self.parts, "prompt")


def _line(prompt: list[int], new: list[int], end: int) -> list[int]:
    """Prompt and new ids, as the released code returns them.

    A prompt that holds the end of sequence is itself cut there as soon as another one is written (spec backbone 10.1).
    """
    line = [*prompt, *new]
    return line[: line.index(end) + 1] if end in new else line
