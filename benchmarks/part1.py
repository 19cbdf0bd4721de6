"""A tiny picture, end to end, by the code of part 1 (from the history of this repository) and by today's.

    python benchmarks/part1.py [ROUNDS]

They run in turn, in processes of their own. The weights differ, the sizes do not: 64 codes with guidance, 19
evaluations of the image decoder. Part 1 takes 64 denoise steps; today's code as many (`same_steps`), and as few as its
own threshold allows (`now`). A picture's time is the mean over five seeds of the fastest of three; the best round
counts. Prints one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PART1 = "d537b9e"
"""The last commit before part 2: the loop kept keys and values of finished blocks already."""
_ASK = """
import json, sys, time
options = json.loads(sys.argv[1])
start = time.perf_counter()
from unveil import Uni
uni = Uni.load("tiny")
ready = time.perf_counter() - start
seconds = []
for seed in range(5):
    taken = []
    for again in range(3):
        begin = time.perf_counter()
        uni.generate_image("a large red star left of a small blue fish on white", seed=seed, **options)
        taken.append(time.perf_counter() - begin)
    seconds.append(min(taken))
print(json.dumps({"ready_s": ready, "picture_s": sum(seconds) / len(seconds)}))
"""


def asked(tree: Path, options: dict[str, float]) -> dict[str, float]:
    """What one process with the code in a directory took."""
    env, asks = {**os.environ, "PYTHONPATH": str(tree)}, [sys.executable, "-c", _ASK, json.dumps(options)]
    ran = subprocess.run(asks, cwd=tree, env=env, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.strip().splitlines()[-1])


def main(rounds: int) -> None:
    """Measure and print."""
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as directory:
        old = Path(directory)
        archive = subprocess.run(["git", "-C", here, "archive", PART1], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", old], input=archive, check=True)
        ways = {"part1": (old, {}), "same_steps": (here, {"threshold": 1.0}), "now": (here, {})}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, (tree, options) in ways.items():
                print(f"part1.py: {name}, round {number + 1} of {rounds}", file=sys.stderr)
                found[name].append(asked(tree, options))
    best = {f"{name}_{key}": min(run[key] for run in runs) for name, runs in found.items() for key in runs[0]}
    took = {name: best[f"{name}_picture_s"] for name in ways}
    gains = {f"{name}_vs_part1": round(took["part1"] / took[name], 2) for name in ("same_steps", "now")}
    print(json.dumps({name: round(value, 3) for name, value in best.items()} | gains))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
