"""config, doctor, chat, train, eval, help and leaving early."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from unveil import Message, cli
from unveil.cli.doctor import fits
from unveil.config import load_preset
from unveil.errors import DivergenceError, TrainingError

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "vae.yaml"


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_help_and_the_package_do_not_import_torch():
    code = "import sys, unveil, unveil.cli\ntry: unveil.cli.main(['--help'])\nexcept SystemExit: pass\n"
    done = python("-c", code + "print('torch' in sys.modules, 'PIL' in sys.modules, file=sys.stderr)")
    assert done.stderr == "False False\n" and "generate" in done.stdout and "retrieve" in done.stdout


def test_help_starts_within_half_a_second_of_processor_time():
    code = "import time, unveil.cli\ntry: unveil.cli.main(['--help'])\nexcept SystemExit: pass\n"
    done = python("-c", code + "import sys; print(time.process_time(), file=sys.stderr)")
    assert float(done.stderr) < 0.5


def test_the_package_runs_as_a_module_and_tells_its_version():
    assert python("-m", "unveil", "--version").stdout.startswith("unveil 0.")


def test_the_lazy_surface_gives_the_real_things():
    import unveil
    from unveil.pipeline.uni import Uni

    assert unveil.Uni is Uni and "Uni" in dir(unveil)
    with pytest.raises(AttributeError, match="Unit"):
        _ = unveil.Unit


def test_config_lists_shows_and_compares(unveil):
    assert unveil("config", "list").out.split() == ["bench", "official", "tiny"]
    shown = json.loads(unveil("config", "show", "tiny", "--json").out)
    assert shown["backbone.width"] == load_preset("tiny").backbone.width and shown["sampling.grid"] == [8, 8]
    assert "backbone.experts = 256\n" in unveil("config", "show", "official").out
    assert "backbone.experts: 8 -> 256\n" in unveil("config", "diff", "tiny", "official").out
    assert unveil("config", "diff", "tiny", "tiny").out == ""


def test_config_shows_a_released_directory(unveil, released_directory):
    assert "backbone.experts = " in unveil("config", "show", released_directory).out
    assert "name: " in unveil("config", "diff", "tiny", released_directory).out


def test_config_names_the_nearest_preset(refused):
    assert "did you mean 'tiny'" in refused("config", "show", "tinny")


def test_config_shows_a_model_directory_and_names_an_unknown_key(unveil, refused, model_directory, tmp_path):
    assert "backbone.width = 32\n" in unveil("config", "show", model_directory).out
    text = (model_directory / "config.yaml").read_text().replace("rotary_fraction", "rotary_fracton")
    (tmp_path / "c.yaml").write_text(text)
    assert "did you mean 'rotary_fraction'" in refused("config", "show", tmp_path / "c.yaml")


def test_doctor_says_what_is_here(unveil):
    found = json.loads(unveil("doctor", "--json").out)
    assert found["fits"]["tiny, generate"].startswith("float32 resident, 0.") and "free on cpu" in str(found["fits"])
    assert found["python"] == sys.version.split()[0] and found["memory_gib"] > 0
    assert "torch" in found["packages"] and found["needs"].keys() == {"bench", "tiny", "official"}
    assert "44 GiB in bfloat16" in found["needs"]["official"]
    assert "python: " in unveil("doctor").out


@pytest.mark.slow
def test_doctor_says_when_a_model_fits_only_in_parts_or_not_at_all(monkeypatch):
    said = {}
    for free in (30e9, 12e9, 4e9):
        monkeypatch.setattr("unveil.memory.measure.free_memory", lambda device, free=free: int(free))
        said[free] = fits()["official, generate"]
    assert said[30e9] == "int8 resident, 26.39 GB of 30.00 GB free on cpu"
    assert said[12e9] == "int4 staged, 10.01 GB of 12.00 GB free on cpu"
    assert said[4e9] == "nothing does of 4.00 GB free on cpu"


def talk(unveil, monkeypatch, model_directory, *lines, options=()):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
    return unveil("chat", "--seed", 3, "--model", model_directory, *options)


def test_chat_works_from_a_pipe(unveil, monkeypatch, model_directory, tmp_path):
    picture = tmp_path / "my star.png"
    outcome = talk(
        unveil, monkeypatch, model_directory, "/help", "/generate a red star", f'/save "{picture}"', "what color?",
        "/edit make it blue", f"/save {tmp_path / 'b.png'}", "/quit", "/generate never",
    )  # fmt: skip
    assert outcome.code == 0 and outcome.err == "running on cpu\n"
    assert "/generate WORDS" in outcome.out and outcome.out.count("a picture of 128x128, seed 3") == 2
    with Image.open(picture) as first, Image.open(tmp_path / "b.png") as second:
        assert first.text["task"] == "generate" and second.text["task"] == "edit"


def test_chat_answers_about_the_picture_as_understand_does(unveil, monkeypatch, model_directory, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    found = []
    for options in ((), ("--steps", 2)):
        said = talk(
            unveil, monkeypatch, model_directory, f"/image {tmp_path / 'a.png'}", "what color?", options=options
        )
        asked = unveil(
            "understand", tmp_path / "a.png", "what color?", "--seed", 3, "--model", model_directory, *options
        )
        assert said.out == "64x64 pixels\n" + asked.out
        found.append(asked.out)
    assert found[0] != found[1]


def test_chat_talks_in_as_many_steps_as_are_asked_for(unveil, uni, monkeypatch, model_directory):
    said = talk(unveil, monkeypatch, model_directory, "hello", options=("--steps", 2)).out
    few, many = (uni.chat([Message("user", "hello")], seed=3, num_inference_steps=n).text + "\n" for n in (2, 32))
    assert said == few != many


def test_chat_survives_mistakes_and_tells_a_pipe_at_the_end(unveil, monkeypatch, model_directory):
    outcome = talk(unveil, monkeypatch, model_directory, "/edit x", "/nonsense", "/image", "/save a.png", "", "hello")
    assert outcome.code == 2 and outcome.err.count("unveil: ") == 4
    assert outcome.err.count("\n") == 5 and outcome.err.endswith("\nrunning on cpu\n")


def test_train_names_a_bad_recipe(refused, tmp_path):
    assert "gone.yaml: cannot be read" in refused("train", tmp_path / "gone.yaml")
    (tmp_path / "r.yaml").write_text(RECIPE.read_text().replace("checkpoint_every", "checkpoint_evry"))
    assert "did you mean 'checkpoint_every'" in refused("train", tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("error", "code"),
    [(DivergenceError("step 3: loss nan"), 3), (TrainingError("step 3: cannot be saved"), 2)],
)
def test_a_run_that_diverged_leaves_with_3_and_other_failures_with_2(unveil, monkeypatch, error, code):
    import unveil.runs as runs

    def start(path):
        raise error

    monkeypatch.setattr(runs, "start", start)
    outcome = unveil("train", RECIPE)
    assert outcome.code == code and outcome.err.startswith("unveil: ") and outcome.err.count("\n") == 1


def test_eval_refuses_no_items(refused):
    assert "--n must be at least 1" in refused("eval", "scenes", "--n", 0, "--model", "nosuch")


def test_ctrl_c_leaves_with_130_and_no_traceback(model_directory, tmp_path):
    code = "import sys, unveil.cli, unveil.pipeline; print('ready', file=sys.stderr); unveil.cli.main(sys.argv[1:])"
    arguments = ["generate", "a star", "-o", str(tmp_path / "a.png"), "--steps", "9999", "--solver-steps", "9999"]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--model", str(model_directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert child.stderr is not None and child.stderr.readline() == "ready\n"
    time.sleep(0.3)  # anywhere: in loading or drawing
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and out == "" and "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "a.png").exists()


def test_an_interrupt_lost_in_a_finalizer_comes_again():
    code = """
import os, signal, sys, time, unveil.cli as cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits that it is ignored
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # here the interrupt is raised, and dropped
def run(arguments):
    last = Last()
    del last
    time.sleep(20)
    return 0
cli._run = run
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_interrupt_outside_of_a_command_leaves_with_130_too(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    with pytest.raises(SystemExit) as left:
        cli.main(["config", "list"])
    assert left.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_reader_who_leaves_early_causes_no_traceback():
    command = f"{sys.executable} -m unveil config show official | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and done.stdout.count("\n") == 1


def test_a_closed_stream_causes_no_traceback():
    command = f"{sys.executable} -m unveil config list"
    for closed, said in ((">&-", ("", "")), ("2>&-", ("bench\nofficial\ntiny\n", ""))):
        done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, (done.stdout, done.stderr)) == (0, said)


def test_eval_prints_the_scores_of_the_model(unveil, model_directory, uni):
    outcome = unveil("eval", "scenes", "--n", 1, "--json", "--model", model_directory)
    result = json.loads(outcome.out)
    assert outcome.code == 0 and result["n"] == 1 and result["weights"] == uni.weights
    names = {"ceiling", "t2i_one", "t2i_two", "vqa", "vqa_blind", "caption_f1", "edit_done", "edit_kept"}
    assert result["scores"].keys() == names | {"retrieval_r1"}
    assert all(0 <= value <= 1 for value in result["scores"].values())


@pytest.mark.parametrize("arguments", [(), ("config",), ("eval",)])
def test_a_bare_group_shows_its_help_in_lines_on_stderr(unveil, arguments):
    outcome = unveil(*arguments)
    assert outcome.code == 2 and outcome.out == "" and "\n" in outcome.err.strip()
    assert outcome.err.startswith("Usage: ")


def test_a_name_too_long_for_the_system_is_named(refused, tmp_path):
    for arguments in (("config", "show", "n" * 300), ("generate", "a", "-o", tmp_path / ("n" * 300 + ".png"))):
        assert "nnn" in refused(*arguments) and "File name too long" in refused(*arguments)
