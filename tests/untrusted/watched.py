"""Run command lines and calls of unveil in one process that writes down what each opens, starts and connects to.

python watched.py JOBS.json OUT.json       a job is {"argv": [...], "stdin": "..."} or {"call": NAME, "path": DIR}
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from unveil import Uni
from unveil.cli import main
from unveil.official import AutoModelForCausalLM, AutoTokenizer, ImageTokenizer, decode_vq_tokens

CALLS = {
    "Uni.load": lambda path: Uni.load(path, "cpu"),
    "Uni.load turbo": lambda path: Uni.load(path, "cpu", decoder="turbo"),
    "from_pretrained": lambda path: AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True),
    "tokenizer": lambda path: AutoTokenizer.from_pretrained(path, trust_remote_code=True),
    "ImageTokenizer": lambda path: ImageTokenizer(path, "cpu"),
    "decode_vq_tokens": lambda path: decode_vq_tokens([0] * 64, 8, 8, path, "cpu", num_steps=2),
}
WATCHED = ("open", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


def run(job: dict[str, str | list[str]]) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    said = io.StringIO()
    sys.stdin = io.StringIO(str(job.get("stdin", "")))
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            main(job["argv"]) if "argv" in job else CALLS[str(job["call"])](job["path"])
    except SystemExit as left:
        return int(left.code or 0), said.getvalue()
    except Exception as error:
        return 2, f"{type(error).__name__}: {error}"
    return 0, said.getvalue()


def watch(jobs: list[dict[str, str | list[str]]]) -> list[dict[str, object]]:
    events = list[tuple[str, str]]()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in WATCHED or event in STARTED:
            events.append(
                (event, str(arguments[1] if event in ("subprocess.Popen", "socket.connect") else arguments[0]))
            )

    sys.addaudithook(hook)
    results = list[dict[str, object]]()
    for job in jobs:
        events.clear()
        code, said = run(job)
        results.append({"code": code, "said": said, "events": list(events)})
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[2]).write_text(json.dumps(watch(json.loads(Path(sys.argv[1]).read_text()))))
