"""``liif leaderboard``."""

from collections.abc import Callable
from pathlib import Path

from liif_core.cli.json_file import json_writer
from liif_core.errors import UserError
from liif_core.evaluation.leaderboard import boards, read_folder
from liif_core.evaluation.leaderboard_page import leaderboard_markdown, leaderboard_page


def leaderboard(folder: Path, output: Path, markdown: Path | None, title: str, say: Callable[[str], None]) -> None:
    """Read all results, and write the page."""
    if markdown is not None and markdown.absolute() == output.absolute():
        raise UserError(f"--markdown {markdown}: is the file of -o too; give another file's name")
    problems = [
        f"{option} {path}: is a file of results, which end with .jsonl; give another name"
        for option, path in (("-o", output), ("--markdown", markdown))
        if path is not None and path.suffix == ".jsonl"
    ]
    if problems:
        raise UserError(*problems)
    write = json_writer(output, "-o")
    write_markdown = None if markdown is None else json_writer(markdown, "--markdown")
    results = read_folder(folder)
    found = boards(results)
    write(leaderboard_page(found, title))
    if write_markdown is not None:
        write_markdown(leaderboard_markdown(found, title))
    for board in found:
        for warning in board.warnings:
            say(f"{board.name}: {warning}")
    shown = sum(len(board.entries) for board in found)
    older = len(results) - shown
    more = f"; {older} older result{'s' * (older != 1)} of the same models left out" if older else ""
    say(f"{shown} results in {len(found)} table{'s' * (len(found) != 1)}{more}: {output}")
