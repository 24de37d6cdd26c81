"""Speed and tightness as ratios in one run: a table, and JSON with the environment beside the figures.

python -m benchmarks.speed --out results/speed.json
"""

import argparse
import json
from pathlib import Path

from benchmarks import intervals_speed, labels_speed, training_speed
from benchmarks.report import environment, write_whole

PARTS = {"labels": labels_speed, "training": training_speed, "intervals": intervals_speed}
COLUMNS = ("value", "baseline", "ratio", "target")


def shown(value: float | str | None) -> str:
    """Return a cell of the table: three digits, or the text itself."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    """Measure, print, and write the same as JSON."""
    parser = argparse.ArgumentParser(description="Measure speed as ratios against named baselines, in one run.")
    parser.add_argument("--out", type=Path, default=Path("results/speed.json"), help="where the JSON goes")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    options = parser.parse_args()
    rows = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            rows += [{"part": name} | row for row in part.measure()]
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}}" + "".join(f"{column:>12}" for column in COLUMNS))
    for row in rows:
        print(f"{row['name']:{width}}" + "".join(f"{shown(row[column]):>12}" for column in COLUMNS))
    write_whole(options.out, json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
