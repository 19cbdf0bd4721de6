"""Facts about a scene, a line each and in any order: what lies where, and questions with their answers.

    what color is the star?
    red
    small blue fish row 2 column 4
    white
    is there a cup?
    no

Nearly every word follows from the picture and the words beside it, so a masked one is a question of its own: text that
teaches how to look something up much sooner than single answers do.
"""

import random

from unveil.scenes.claims import Claims
from unveil.scenes.plan import placed
from unveil.scenes.question import FAMILIES, ask
from unveil.scenes.scene import Scene

FACTS = "list facts about the picture"  # what they are asked for with


def facts(scene: Scene, rng: random.Random, questions: int) -> str:
    """The background, each thing with its cell, and up to `questions` questions with answers, shuffled."""
    lines = [scene.background, *map(placed, scene.things)]
    for family in rng.sample(FAMILIES, questions):
        asked = ask(scene, rng, family)
        if asked is not None:
            lines.append(f"{asked.text}\n{asked.answer}")
    return "\n".join(rng.sample(lines, len(lines)))


def claimed(claims: Claims, rng: random.Random) -> str:
    """What a caption says of the background, of each thing and of who is left of whom, shuffled."""
    things = [like.words for like in claims.things]
    lines = [claims.background, *things, *(f"{things[i]} {word} {things[j]}" for i, word, j in claims.relations)]
    return "\n".join(rng.sample(lines, len(lines)))
