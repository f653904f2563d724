"""``volseg inspect``: what a path holds, and what can be segmented of it."""

from __future__ import annotations

import json as json_format
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.progress import bar, progress_line

if TYPE_CHECKING:
    from rich.console import Console

    from volseg.loaders import Candidate, Listing

#: From so many files on it takes long enough to say how far it is.
MANY = 500
#: Least width of output that goes to a file.
NARROW = 80
#: Volumes of one series that are alike have a line each up to this many.
FEW = 4
_KINDS = {"dicom": "-", "nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "Meta"}


def inspect(
    path: Annotated[Path, typer.Argument(help="A NIfTI file, a DICOM series, a study folder, or a folder of these.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="Also show in which folder each image lies.")] = False,
    all_volumes: Annotated[
        bool, typer.Option("--all", help="Show each volume of a long series on a line of its own.")
    ] = False,
) -> None:
    """Show the images in PATH, their geometry, and whether each can be segmented or why not."""
    from volseg.loaders import find

    with progress_line() as line:

        def show(done: int, files: int) -> None:
            if files >= MANY and done % 100 == 0:
                line.update(f"reading headers: {bar(done, files)}")

        listing = find(path, progress=show)
    if json:
        print(as_json(listing))
    else:
        _print_tables(listing, tree, all_volumes)
    if not listing.candidates:
        print(f"volseg: {_shown(str(path))}: no image that volseg reads", file=sys.stderr)
    if not listing.candidates or not all(candidate.usable for candidate in listing.candidates):
        raise typer.Exit(1)


def as_json(listing: Listing) -> str:
    """One strict JSON document; paths are relative to the listing's root."""
    from volseg.text import relative

    content = {
        "candidates": [candidate.as_json(listing.root) for candidate in listing.candidates],
        "ignored": [{"path": relative(item.path, listing.root), "reason": item.reason} for item in listing.ignored],
    }
    return json_format.dumps(content, indent=2, allow_nan=False)


def _print_tables(listing: Listing, tree: bool, all_volumes: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Whoever reads a file or a pipe has no terminal to fold lines: long names must stay whole.
        console.width = max(console.width, NARROW)
    groups = _groups(listing.candidates, few=len(listing.candidates) if all_volumes else FEW)
    if groups:
        _print_table(groups, console)
        _print_remarks(groups, console)
        if len(groups) < len(listing.candidates):
            console.print("volumes of a series that are alike share a line (--all gives each its own)")
    if tree:
        _print_tree(listing, console)
    elif listing.ignored:
        count = len(listing.ignored)
        console.print(f"{count} other {'file' if count == 1 else 'files'} ignored (--tree lists them)")


def _groups(candidates: Sequence[Candidate], few: int) -> list[list[Candidate]]:
    """Candidates that share a line: more than `few` of one series with one grid and one verdict."""
    alike: dict[tuple[object, ...], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        alike[candidate.series_uid or candidate.name, candidate.path, candidate.code, *_row(candidate)[1:]].append(
            candidate
        )
    groups = []
    for group in alike.values():
        groups += [group] if len(group) > few else [[candidate] for candidate in group]
    place = {id(candidate): number for number, candidate in enumerate(candidates)}
    return sorted(groups, key=lambda group: place[id(group[0])])


def _name(group: Sequence[Candidate]) -> str:
    first, others = group[0].name, len(group) - 1
    return f"{first} and {others} more volumes of its series" if others else first


def _print_table(groups: Sequence[Sequence[Candidate]], console: Console) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("name", overflow="fold")
    table.add_column("type", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("spacing mm", justify="right", no_wrap=True)
    table.add_column("axes", no_wrap=True)
    table.add_column("slices", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for group in groups:
        table.add_row(_name(group), *_row(group[0])[1:])
    console.print(table)


def _row(candidate: Candidate) -> tuple[str, ...]:
    grid = candidate.geometry
    size = "x".join(map(str, grid.shape)) if grid else "-"
    if candidate.channels > 1:
        size = f"{candidate.channels}ch {size}"
    return (
        candidate.name,
        candidate.modality or _KINDS[candidate.kind],
        size,
        "x".join(f"{step:.3g}" for step in grid.spacing_mm) if grid else "-",
        grid.orientation if grid else "-",
        str(grid.shape[2] if grid else len(candidate.slices or candidate.files)),
        "usable" if candidate.usable else "refused",
    )


def _print_remarks(groups: Sequence[Sequence[Candidate]], console: Console) -> None:
    """Reasons and notes, a line each that is folded under its own indent."""
    from rich.padding import Padding

    said = False
    for group in groups:
        remarks = Counter(remark for candidate in group for remark in _remarks(candidate))
        if remarks:
            console.print(_name(group))
        for remark, times in remarks.items():
            where = f" ({times} of {len(group)} volumes)" if times < len(group) else ""
            console.print(Padding(_shown(remark + where), (0, 0, 0, 2)))
        said = said or bool(remarks)
    if said:
        console.print()


def _remarks(candidate: Candidate) -> list[str]:
    reasons = [f"refused ({candidate.code}): {candidate.reason}"] if candidate.reason else []
    return [*reasons, *(f"note: {note}" for note in candidate.notes)]


def _print_tree(listing: Listing, console: Console) -> None:
    """Folders, the images in them, and the files that were ignored."""
    from rich.text import Text
    from rich.tree import Tree

    from volseg.text import relative

    top = Tree(Text(_shown(str(listing.root))))
    branches = {".": top}

    def branch(folder: str) -> Tree:
        if folder not in branches:
            parent, _, name = folder.rpartition("/")
            branches[folder] = branch(parent or ".").add(Text(_shown(name) + "/"))
        return branches[folder]

    for candidate in listing.candidates:
        where = candidate.path if candidate.path.is_dir() else candidate.path.parent
        files = f"{len(candidate.files)} {'file' if len(candidate.files) == 1 else 'files'}"
        verdict = "usable" if candidate.usable else candidate.code
        branch(relative(where, listing.root)).add(Text(f"{candidate.name} ({files}, {verdict})"))
    for item in listing.ignored:
        branch(relative(item.path.parent, listing.root)).add(Text(_shown(f"{item.path.name}: ignored, {item.reason}")))
    console.print(top)


def _shown(text: str) -> str:
    """`text` as any terminal can show it: file names needn't be valid text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
