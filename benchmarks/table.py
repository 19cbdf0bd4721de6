"""What `benchmarks/run.sh` kept, as the table in README.md: `python benchmarks/table.py benchmarks/results/NAME WHERE`.

Only ratios: they were measured side by side in one process.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from document import DOCUMENT, put

README = DOCUMENT.parents[1] / "README.md"


def table(bench: Mapping[str, float], part1: Mapping[str, float], where: str) -> str:
    """The ratios that are asked for, each with its bar."""
    same = f"{bench['same_codes']} of {bench['codes']} codes the same"
    rows = [
        (f"a picture of 1,024 codes: the engine against the plain loop, {same}", bench["engine_vs_plain"], 6),
        ("the engine against SPRINT with the released defaults (approximate)", bench["engine_vs_sprint"], 2.5),
        ("the engine against SPRINT with the published arguments", bench["engine_vs_sprint_published"], None),
        ("16 requests together against one by one", bench["batch16_vs_serial"], 1.8),
        ("a picture of `tiny`, from prompt to pixels, against part 1", part1["now_vs_part1"], 1.5),
        ("the same with as many denoise steps as part 1 takes, 64", part1["same_steps_vs_part1"], None),
    ]
    lines = [where, "", "| times faster | measured | must |", "|---|---|---|"]
    for what, ratio, bar in rows:
        missed = " (below)" if bar is not None and ratio < bar else ""
        lines.append(f"| {what} | {ratio:.2f}{missed} | {'-' if bar is None else bar} |")
    cost = f"Batch-invariant scores take {bench['invariant_cost']:.2f} times as long."
    sizes = f"{bench['cache_bytes']:,} bytes, {bench['cache_formula']:,} by formula"
    held = f"Keys and values of 1,024 + 128 positions: {sizes}."
    return "\n".join([*lines, "", f"{cost} {held}"])


def main(name: str, where: str) -> None:
    """Read both results and put the table into the README."""
    bench, part1 = (json.loads(Path(f"{name}{end}.json").read_text(encoding="utf-8")) for end in ("", "-part1"))
    put("bench", table(bench, part1, where), README)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
