"""Where ``liif upscale`` may write: never to a file that it reads, and only where a file can be made."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from liif_core.cli.upscale_inputs import FileKey, file_key


def place_problems(output: Path | None, out_dir: Path | None) -> list[str]:
    """What keeps -o from being a file, or --out-dir from being a folder."""
    if output is not None:
        mode, problem = _mode(output)
        if problem:
            return [f"-o {output}: cannot be written ({problem})"]
        if mode is not None and stat.S_ISDIR(mode):
            return [f"-o {output}: is a folder; give a file's name, or use --out-dir {output}"]
        if mode is not None and not stat.S_ISREG(mode):
            return [f"-o {output}: is a device or a pipe, not a file; give a file's name, or - for standard output"]
    if out_dir is not None:
        mode, problem = _mode(out_dir)
        if problem:
            return [f"--out-dir {out_dir}: cannot be made ({problem})"]
        if mode is not None and not stat.S_ISDIR(mode):
            return [f"--out-dir {out_dir}: is not a folder"]
    return []


def replaced_problems(chosen: Sequence[tuple[Path, Path]], protected: dict[str, Path]) -> list[str]:
    """Outputs that are, by whatever name, an input or one of the ``protected`` files.

    ``chosen`` holds every input with its output. Files are compared, not names: links, hard links, paths with .. and
    other spellings on disks that ignore case are the same file.
    """
    read = _files_read(chosen, protected)
    problems = []
    for source, target in chosen:
        key = file_key(target)
        if key is None or key not in read:
            continue
        if key == file_key(source):
            problems.append(f"{source}: its output would replace it; use another --out-dir or -o")
        else:
            problems.append(f"{source}: its output {target} would replace {read[key]}; use another --out-dir or -o")
    return problems


def json_problems(
    json_path: Path, chosen: Sequence[tuple[Path, Path]], protected: dict[str, Path], option: str = "--json"
) -> list[str]:
    """Whether the file of ``option`` is one of the files that are read, or is written as an output too."""
    key = file_key(json_path)
    read = _files_read(chosen, protected)
    if key is not None and key in read:
        return [f"{option} {json_path}: would replace {read[key]}; give another file's name"]
    real = os.path.realpath(json_path)
    for source, target in chosen:
        if os.path.realpath(target) == real or (key is not None and key == file_key(target)):
            return [f"{option} {json_path}: is the output of {source} too; give another file's name"]
    return []


def _files_read(chosen: Sequence[tuple[Path, Path]], protected: dict[str, Path]) -> dict[FileKey, str]:
    """What messages call each file that is read, by what is the same for all of its names."""
    called = [*((path, what) for what, path in protected.items()), *((source, str(source)) for source, _ in chosen)]
    return {key: what for path, what in called if (key := file_key(path)) is not None}


def _mode(path: Path) -> tuple[int | None, str]:
    """The mode of what is at ``path``, None where nothing is; and why nothing can be there, or nothing."""
    try:
        return os.stat(path).st_mode, ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError) as problem:
        return None, getattr(problem, "strerror", None) or str(problem)
