"""A tiny picture, end to end, by the code of part 1 (from the history of this repository) and by today's.

    python benchmarks/part1.py [ROUNDS]

Both run in turn, in processes of their own; of each the fastest picture counts. Prints one JSON object. The weights
differ, the sizes and settings do not: 64 codes in 64 denoise steps with guidance, 19 evaluations of the image decoder.
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
import json, time
start = time.perf_counter()
from unveil import Uni
uni = Uni.load("tiny")
ready = time.perf_counter() - start
seconds = []
for seed in range(5):
    begin = time.perf_counter()
    uni.generate_image("a large red star left of a small blue fish on white", seed=seed)
    seconds.append(time.perf_counter() - begin)
print(json.dumps({"ready_s": ready, "picture_s": min(seconds)}))
"""


def asked(tree: Path) -> dict[str, float]:
    """What one process with the code in a directory took."""
    env = {**os.environ, "PYTHONPATH": str(tree)}
    ran = subprocess.run([sys.executable, "-c", _ASK], cwd=tree, env=env, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.strip().splitlines()[-1])


def main(rounds: int) -> None:
    """Measure and print."""
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as directory:
        old = Path(directory)
        archive = subprocess.run(["git", "-C", here, "archive", PART1], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", old], input=archive, check=True)
        found: dict[str, list[dict[str, float]]] = {"part1": [], "now": []}
        for number in range(rounds):
            for name, tree in (("part1", old), ("now", here)):
                print(f"part1.py: {name}, round {number + 1} of {rounds}", file=sys.stderr)
                found[name].append(asked(tree))
    best = {f"{name}_{key}": min(run[key] for run in runs) for name, runs in found.items() for key in runs[0]}
    gain = best["part1_picture_s"] / best["now_picture_s"]
    print(json.dumps({name: round(value, 3) for name, value in best.items()} | {"generate_vs_part1": round(gain, 2)}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
