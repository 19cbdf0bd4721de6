"""The official high-level calls: their prompts, and what comes out of each phase."""

from collections.abc import Iterator

from unveil.config import load_preset
from unveil.errors import GenerationError, RequestError
from unveil.parity.golden import Case
from unveil.parity.judge import Check
from unveil.parity.models import BackboneSide
from unveil.parity.unmasking import BRANCHES, line_of, policy_of, task_of
from unveil.sampling import Loop, fill, think
from unveil.shapes import Tensor


def high_level(models: BackboneSide, case: Case) -> Iterator[Check]:
    """One call: `generate_image` (also thinking), `edit_image` or `understand_image`."""
    result, thinking, (h, w) = case.params["result"], _thinks(case), _grid(case)
    yield from _prompts(models, case)
    if "h" in result:
        yield Check("result.grid", [h, w], [result["h"], result["w"]], tolerance="exact")
    for i, phase in enumerate(case.params["phases"]):
        prompt, image = case.ids(f"phase{i}_input_ids"), phase["call"] == "generate_bd_image"
        if not image and phase["call"] != "generate_bd":
            raise RequestError(f"its phase calls '{phase['call']}', which is not known")
        given = {name: f"phase{i}_{name}" for name in BRANCHES}
        branches = {name: case.ids(full) for name, full in given.items() if full in case.inputs}
        task = task_of(phase["params"], prompt, branches, models.layout, image)
        policy = policy_of(phase["params"], task.tokens)
        line = line_of(fill(models.backbone, task, policy, models.layout), task, models.layout)
        yield Check(f"phase{i}_ids", line)
        if image:
            yield Check("token_ids", [token - models.layout.image_offset for token in line[len(prompt) :]][: h * w])
        elif thinking:
            yield from _plan(models, case, i)
        elif "text" in result:
            asked = models.text.encode(case.params["arguments"].get("question", ""))
            yield Check("result.text", models.text.decode(line[len(prompt) - len(asked) :]), result["text"])


def _plan(models: BackboneSide, case: Case, i: int) -> Iterator[Check]:
    """The plan in words and the prefix of the next phase; or the error where no plan comes about."""
    params, result = case.params["phases"][i]["params"], case.params["result"]
    prompt, tokens = case.ids(f"phase{i}_input_ids"), params["gen_length"]
    policy = policy_of(params, tokens)
    try:
        plan = think(
            Loop(models.backbone, models.layout), [prompt], models.layout, header=[], tokens=tokens, policy=policy
        )[0]
    except GenerationError:
        yield Check("result.error", True, "error" in result, tolerance="exact")
        return
    yield Check("result.error", False, "error" in result, tolerance="exact")
    if "error" not in result:
        following = f"phase{i + 1}_input_ids"
        yield Check(following, plan.prefix, case.ids(following), tolerance="exact")
        said = models.text.decode(plan.prefix[len(prompt) : -1])
        yield Check("result.thinking", said, result["thinking"], tolerance="exact")


def _prompts(models: BackboneSide, case: Case) -> Iterator[Check]:
    """Every recorded prompt and guidance branch against ours; what a plan leads to is no prompt of ours."""
    ours = _our_prompts(models, case)
    made = {"image_tokens", "phase1_input_ids"} if _thinks(case) else {"image_tokens"}
    for name in case.inputs:
        if name not in made:
            yield Check(name, ours[name], case.ids(name), tolerance="exact")


def _our_prompts(models: BackboneSide, case: Case) -> dict[str, list[int]]:
    call, asked, prompts, (h, w) = case.params["call"], case.params["arguments"], models.prompts, _grid(case)
    if call == "generate_image":
        if _thinks(case):
            first, second = prompts.think(asked["prompt"]), prompts.think_unconditional(h, w)
            return {"phase0_input_ids": first, "phase1_uncond_ids": second}
        first, second = prompts.generate(asked["prompt"], h, w), prompts.generate_unconditional(h, w)
        return {"phase0_input_ids": first, "phase0_uncond_ids": second}
    codes: Tensor = case.inputs["image_tokens"].reshape(h, w) - models.layout.image_offset
    if call == "edit_image":
        return {
            "phase0_input_ids": prompts.edit(codes, asked["instruction"]),
            "phase0_uncond_text": prompts.edit_no_text(codes),
            "phase0_uncond_img": prompts.edit_no_image(h, w, asked["instruction"]),
        }
    if call == "understand_image":
        return {"phase0_input_ids": prompts.understand_bare(codes, asked.get("question", ""))}
    raise RequestError(f"its call '{call}' is not known; there are generate_image, edit_image, understand_image")


def _grid(case: Case) -> tuple[int, int]:
    """Rows and columns of codes; text to image is asked for in pixels, the other calls are told the codes."""
    asked, scale = case.params["arguments"], 1
    if case.params["call"] == "generate_image":
        scale = load_preset("official").picture_scale
    return asked["image_h"] // scale, asked["image_w"] // scale


def _thinks(case: Case) -> bool:
    return bool(case.params["arguments"].get("mode") == "thinking")
