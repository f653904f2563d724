"""``volseg inspect``: what a path holds, and what can be segmented of it."""

from __future__ import annotations

import json as json_format
import sys
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
_KINDS = {"dicom": "-", "nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "Meta"}


def inspect(
    path: Annotated[Path, typer.Argument(help="A NIfTI file, a DICOM series, a study folder, or a folder of these.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="Also show in which folder each image lies.")] = False,
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
        _print_tables(listing, tree)
    if not listing.candidates:
        print(f"volseg: {_shown(str(path))}: no image that volseg reads", file=sys.stderr)
    if not listing.candidates or not all(candidate.usable for candidate in listing.candidates):
        raise typer.Exit(1)


def as_json(listing: Listing) -> str:
    """One strict JSON document; paths are relative to the study's root."""
    from volseg.text import relative

    content = {
        "candidates": [candidate.as_json(listing.root) for candidate in listing.candidates],
        "ignored": [{"path": relative(item.path, listing.root), "reason": item.reason} for item in listing.ignored],
    }
    return json_format.dumps(content, indent=2, allow_nan=False)


def _print_tables(listing: Listing, tree: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Whoever reads a file or a pipe has no terminal to fold lines: long names must stay whole.
        console.width = max(console.width, NARROW)
    if listing.candidates:
        _print_table(listing, console)
        _print_remarks(listing, console)
    if tree:
        _print_tree(listing, console)
    elif listing.ignored:
        count = len(listing.ignored)
        console.print(f"{count} other {'file' if count == 1 else 'files'} ignored (--tree lists them)")


def _print_table(listing: Listing, console: Console) -> None:
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
    for candidate in listing.candidates:
        table.add_row(*_row(candidate))
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


def _print_remarks(listing: Listing, console: Console) -> None:
    """Reasons and notes, a line each that is folded under its own indent."""
    from rich.padding import Padding

    for candidate in listing.candidates:
        remarks = [f"refused ({candidate.code}): {candidate.reason}"] if candidate.reason else []
        remarks += [f"note: {note}" for note in candidate.notes]
        if remarks:
            console.print(candidate.name)
            for remark in remarks:
                console.print(Padding(_shown(remark), (0, 0, 0, 2)))
    if any(candidate.reason or candidate.notes for candidate in listing.candidates):
        console.print()


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
