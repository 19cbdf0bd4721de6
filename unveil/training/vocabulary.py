"""The text the BPE is trained on: every sentence family of the scenes, and the prompt templates' own words."""

from collections.abc import Iterator

from unveil.scenes.caption import caption
from unveil.scenes.describe import DESCRIBE, describe
from unveil.scenes.edit import edit
from unveil.scenes.plan import plan
from unveil.scenes.question import ask
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.story import MAX_FRAMES, story
from unveil.vocab import prompt as templates

SAMPLES = 20_000
COMMON = """
about after again against all almost alone along already also always among another answer any anything around ask away
back because become been before began begin being believe better between both bring build but call came can change
child city close cold come could country cut day did different do does done door down draw each early earth easy eat end
enough even every example eye face fact fall family far feel few find first fly follow food foot for form four free
friend from full game gave get girl give go good got great group grow had half hand happy hard has have he head hear
help her here high him his hold home hope hot hour how idea if important into it its just keep kind know land last late
later laugh learn leave less let letter life light like line list little live long look lost love low made make man many
may mean might mind money more morning most mother mountain mouth much music must my name near need never new next night
nothing now number off often old once only open other our out own paint page paper part pass people perhaps person
picture place plant play please point power problem put question quick quiet rain read ready real remember rest rich
river road room round run said same saw say school sea second see seem sentence set she short should show side simple
sing sit sky sleep slow snow so some something song soon sound speak stand start state still stop story street strong
such sun sure table take talk teach tell than that their them then they thing think thought three through time today
together told tomorrow too took town turn under until up us use very voice wait walk want warm was watch water way we
weather week well went were what when where which while who why will wind window wish with without woman wonder word
work world would write year yes yet you young your
"""  # beside the sentences of the scenes, so that other prompts fall into pieces that are not single bytes


def corpus(samples: int = SAMPLES) -> Iterator[str]:
    """Sentences of training scenes `0`..`samples - 1`, then the fixed lines of the prompts many times over."""
    for index in range(samples):
        rng = generator("train", "vocabulary", index)
        scene = sample_scene(rng)
        told = story(sample_scene(rng, (1, 3)), rng, rng.randint(2, MAX_FRAMES))
        yield from (caption(scene, rng).text, describe(scene), plan(scene))
        yield from (told.prompt, *(words for words, _ in told.frames))
        asked, change = ask(scene, rng), edit(scene, rng)
        yield from (asked.text, asked.answer) if asked else ()
        yield from (change.instruction,) if change else ()
    fixed = (
        templates.GENERATE, templates.THINK, templates.EDIT, templates.UNDERSTAND, templates.INTERLEAVE,
        templates.CHAT, templates.UNCONDITION, DESCRIBE,
    )  # fmt: skip
    for line in fixed:
        yield from [f" {line} "] * (samples // 10)
    for word in COMMON.split():
        yield from [f" {word}", word]
