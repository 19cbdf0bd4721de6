from pathlib import Path

import pytest

from unveil.config.tree import VocabConfig
from unveil.diffusion.guidance import Guidance
from unveil.errors import GenerationError
from unveil.sampling.commit import Quota
from unveil.sampling.loop import Loop
from unveil.sampling.step import Policy
from unveil.sampling.story import Limits, Picture, StoryGuidance, interleave, read_header, story_branches
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts
from unveil.vocab.text import Text

TOKENIZER = Path(__file__).parents[1] / "golden" / "backbone-A" / "checkpoint" / "tokenizer.json"
POLICY = Policy(Quota(threshold=0.9, steps=4), block_size=4)
LIMITS = Limits(pictures=3, text_tokens=24, codes=100, context=400)
UNGUIDED = StoryGuidance(Guidance(), Guidance())


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    text = Text.load(TOKENIZER)
    return Prompts(text, Layout.of(VocabConfig(size=896, image_offset=768, pad=476, mask=479), text))


@pytest.fixture
def start(prompts):
    return prompts.interleave("a red car. it turns blue")


@pytest.fixture
def tell(recite, prompts, start):
    """The story that a reciter of `text` tells after the prompt."""

    def told(text, guidance=UNGUIDED, limits=LIMITS):
        reciter = recite([0] * len(start) + text, size=896)
        parts = interleave(
            Loop(reciter, prompts.layout), start, prompts, limits=limits, guidance=guidance, text=POLICY, picture=POLICY
        )
        return [p.codes.tolist() if isinstance(p, Picture) else p.ids for p in parts], reciter

    return told


def picture(prompts, h, w, first):
    layout = prompts.layout
    codes = [layout.image_offset + first + i for i in range(h * w)]
    return [*prompts.header(h, w), *codes, layout.eoi]


def test_words_and_pictures_take_turns_until_the_end_token(tell, prompts):
    text = [*[70, 71, 72], *picture(prompts, 8, 8, 0), 73, *picture(prompts, 8, 10, 20), 74, 75, prompts.layout.pad]
    parts, _ = tell(text)
    assert [parts[0], parts[2], parts[4]] == [[70, 71, 72], [73], [74, 75]]
    assert parts[1] == [[8 * r + c for c in range(8)] for r in range(8)]
    assert parts[3] == [[20 + 10 * r + c for c in range(10)] for r in range(8)]
    assert len(parts) == 5


def test_a_story_may_begin_with_a_picture_and_end_without_words(tell, prompts):
    parts, _ = tell([*picture(prompts, 8, 8, 0), prompts.layout.pad])
    assert len(parts) == 1 and parts[0][0][:3] == [0, 1, 2]


def test_a_story_ends_with_its_last_allowed_picture(tell, prompts):
    parts, _ = tell([70, *picture(prompts, 8, 8, 0), 71, 72, 73], limits=Limits(1, 24, 100, 400))
    assert [parts[0], len(parts)] == [[70], 2]


def test_a_stretch_of_text_ends_with_its_budget(tell):
    parts, _ = tell([70 + i for i in range(40)])
    assert parts == [[70 + i for i in range(24)]]


def test_end_of_image_follows_the_codes_whatever_the_model_says(tell, prompts):
    text = [70, *picture(prompts, 8, 8, 0)]
    text[-1] = 99  # where the end belongs
    parts, reciter = tell([*text, 71, prompts.layout.pad])
    assert parts[2] == [71]
    last = reciter.calls[-1][0][0].tolist()
    assert prompts.layout.eoi in last and 99 not in last


@pytest.mark.parametrize(
    "header", ["{boi}", "{soi}{boi}", "{soi}{h}{boi}", "{soi}{h}{h}{h}{boi}", "{soi}{word}{h}{boi}"]
)
def test_a_header_that_does_not_give_height_and_width_is_an_error(prompts, header):
    layout = prompts.layout
    known = {"boi": layout.boi, "soi": layout.soi, "h": layout.size_token(8), "word": 70}
    ids = [known[name] for name in header.strip("{}").split("}{")]
    with pytest.raises(GenerationError, match="size"):
        read_header([70, *ids], layout)


def test_the_header_is_what_follows_the_last_start_of_image(prompts):
    layout = prompts.layout
    new = [70, layout.soi, 71, *prompts.header(8, 10)]
    assert read_header(new, layout) == ([70, layout.soi, 71], (8, 10))


def test_a_picture_beyond_the_limits_is_an_error(tell, prompts):
    text = [70, *picture(prompts, 8, 8, 0)]
    with pytest.raises(GenerationError, match="at most 63"):
        tell(text, limits=Limits(3, 24, 63, 400))
    with pytest.raises(GenerationError, match="context of 90"):
        tell(text, limits=Limits(3, 24, 100, 90))


def test_the_first_picture_is_guided_by_no_prompt_and_later_ones_by_no_text_and_no_image(prompts, start):
    layout, header = prompts.layout, prompts.header(8, 8)
    simple, edit = Guidance.simple(4, 0.7), Guidance.edit(7.5, 1.5, 0.7)
    assert story_branches(prompts, [*start, 70, *header], [70], (8, 8), Guidance()) == []
    unconditional = prompts.interleave("<uncondition>")
    assert story_branches(prompts, [*start, 70, *header], [70], (8, 8), simple) == [[[*unconditional, *header]]]
    past = [*start, 70, *picture(prompts, 8, 8, 0)]
    no_text, no_image = story_branches(prompts, [*past, 71, *header], [71], (8, 8), edit)
    assert no_text == [[*past, *prompts.text.encode("<uncondition>"), *header]]
    assert no_image == [[*unconditional, 71, *header]]
    assert past[-1] == layout.eoi


def test_a_story_runs_these_branches(tell, prompts, start):
    guidance = StoryGuidance(Guidance.simple(4, 0.7), Guidance.edit(7.5, 1.5, 0.7))
    _, reciter = tell(
        [70, *picture(prompts, 8, 8, 0), 71, *picture(prompts, 8, 8, 0)], guidance, Limits(2, 24, 64, 400)
    )
    assert [len(tokens) for tokens, *_ in reciter.calls if len(tokens) > 1][0] == 2
    later = [(ids, visible) for ids, _, visible in reciter.calls if len(ids) == 3]
    ids, visible = later[0]
    seen = [row[sees].tolist() for row, sees in zip(ids, visible[:, -1], strict=True)]
    past = [*start, 70, *picture(prompts, 8, 8, 0)]
    header, uncondition = prompts.header(8, 8), prompts.text.encode("<uncondition>")
    expected = [
        [*past, 71, *header],
        [*past, *uncondition, *header],
        [*prompts.interleave("<uncondition>"), 71, *header],
    ]
    assert [row[: len(e)] for row, e in zip(seen, expected, strict=True)] == expected
