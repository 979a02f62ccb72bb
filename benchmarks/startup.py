"""Measure the start-up time of the command line, beyond that of a bare interpreter.

    python benchmarks/startup.py [--runs 11] [--json FILE]

Each round runs every command once, so that other load affects all of them. The time beyond the bare interpreter is the
difference within a round. Printed are medians. The goal is ``liif --help`` within 60 ms of bare. ``liif plugins``
imports all plugins; those that come with liif-core import torch, which is therefore timed by itself, too.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python, bare": ["-c", "pass"],
    "liif --help": ["-m", "liif_core", "--help"],
    "liif-run --help": ["-c", "from liif_core.cli import liif_run; liif_run(['--help'])"],
    "liif plugins": ["-m", "liif_core", "plugins"],
    "import liif_core.registry.discovery": ["-c", "import liif_core.registry.discovery"],
    "import torch": ["-c", "import torch"],
}
BARE = next(iter(COMMANDS))


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(runs: int) -> list[dict[str, object]]:
    for arguments in COMMANDS.values():  # a warm-up, which compiles bytecode and reads files
        seconds(arguments)
    rounds = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(runs)]
    return [
        {
            "command": name,
            "milliseconds": round(1000 * statistics.median(r[name] for r in rounds), 1),
            "beyond_bare": round(1000 * statistics.median(r[name] - r[BARE] for r in rounds), 1),
            "slowest": round(1000 * max(r[name] for r in rounds), 1),
        }
        for name in COMMANDS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.runs)
    print("| command | ms, median | beyond bare | slowest |\n|---|---:|---:|---:|")
    for row in rows:
        print("| `{command}` | {milliseconds} | {beyond_bare} | {slowest} |".format(**row))
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "runs": options.runs}
        options.json.write_text(json.dumps({**machine, "commands": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
