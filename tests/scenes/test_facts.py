"""Facts are true, tell every thing, and come in any order."""

from unveil.scenes.claims import Claims
from unveil.scenes.example import example
from unveil.scenes.facts import claimed, facts
from unveil.scenes.plan import parse_plan
from unveil.scenes.question import FAMILIES
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import BACKGROUNDS


def test_every_fact_is_true_and_the_facts_tell_the_whole_scene(answer):
    asked = 0
    for i in range(300):
        rng = generator("test", "facts", i)
        scene = sample_scene(rng)
        lines = iter(facts(scene, rng, 3).split("\n"))
        background, placed = "", []
        for line in lines:
            if line.endswith("?"):
                asked += 1
                assert next(lines) == answer(line, scene), line
            elif line in BACKGROUNDS:
                background = line
            else:
                placed.append(line)
        assert parse_plan(". ".join([background, *placed]) + ".") == scene
    assert 600 < asked <= 900  # three each, but for families that a scene has no question of


def test_facts_ask_as_many_questions_as_told_and_none_twice(star_and_fish):
    for i in range(50):
        for count in (0, 2, len(FAMILIES)):
            lines = facts(star_and_fish, generator("test", "facts", i), count).split("\n")
            questions = [line for line in lines if line.endswith("?")]
            assert len(questions) == len(set(questions)) <= count
    assert sorted(facts(star_and_fish, generator("test", "facts", 0), 0).split("\n")) == [
        "large red star row 2 column 1",
        "small blue fish row 2 column 4",
        "white",
    ]


def test_the_order_of_facts_tells_nothing(star_and_fish):
    orders = {facts(star_and_fish, generator("test", "facts", i), 0) for i in range(60)}
    assert len(orders) == 6


def test_what_a_caption_claims_is_all_of_it_in_any_order():
    item = example("t2i_two", 5, "train")
    assert isinstance(item.judge, Claims)
    (a, b), ((i, word, j),) = item.judge.things, item.judge.relations
    first, second = (a, b) if i == 0 else (b, a)
    assert (i, j) in ((0, 1), (1, 0)) and item.prompt.startswith(f"{first.one} {word} {second.one} on ")
    said = {claimed(item.judge, generator("test", "claimed", k)) for k in range(200)}
    assert len(said) == 24
    wanted = sorted([item.judge.background, a.words, b.words, f"{first.words} {word} {second.words}"])
    assert all(sorted(each.split("\n")) == wanted for each in said)
