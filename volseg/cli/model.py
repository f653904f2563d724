"""``volseg model``: list, show, labels, pack, import-nnunet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="List, show, pack and import models.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_models() -> None:
    """List the models that come with volseg."""
    from volseg.models import bundled_models, model_path
    from volseg.models.folder import read_model

    for name in bundled_models():
        recipe = read_model(model_path(name)).manifest.recipe
        print(f"{name} {recipe.version}: {recipe.description}")


@app.command()
def show(model: Annotated[str, typer.Argument(help="Bundled name or model folder.")]) -> None:
    """Show what a model segments, in what, and what it was trained on; its weights are checked."""
    from volseg.models import model_path
    from volseg.models.folder import read_model, spans_text

    folder = read_model(model_path(model))
    recipe, trained_on = folder.manifest.recipe, folder.manifest.trained_on
    for stage in filter(None, (folder, folder.stage1)):
        for fold in stage.manifest.weights:
            stage.weights(fold)
    print(f"{recipe.name} {recipe.version}: {recipe.description}")
    print(f"sha256        {folder.sha256}")
    for channel in recipe.channels:
        print(f"channel       {channel.name}, modality {' or '.join(channel.modalities) or 'any'}")
    for label in recipe.labels:
        code = f", {label.code.scheme} {label.code.value} {label.code.meaning}" if label.code else ""
        print(f"label         {label.value} {label.name}{code}")
    spacing = "the scan's own" if recipe.spacing_mm is None else " x ".join(f"{s:g}" for s in recipe.spacing_mm) + " mm"
    print(f"grid          {recipe.orientation}, spacing {spacing}, window {' x '.join(map(str, recipe.window))}")
    print(f"folds         {', '.join(folder.manifest.weights)} (sha256 as in model.json)")
    if folder.stage1 is not None:
        print(f"first stage   {folder.stage1.manifest.recipe.name}, folds {', '.join(folder.stage1.manifest.weights)}")
    if trained_on.volseg is None:
        print("trained on    not by volseg: see the card")
    else:
        print(f"trained on    {len(trained_on.cases)} cases, {trained_on.steps} steps, {trained_on.minutes:.0f} min")
        print(f"spacing       {spans_text(trained_on.spacing_mm)}")
        print(f"field of view {spans_text(trained_on.extent_mm)}")
    print(f"card          {folder.path / 'CARD.md'}")


@app.command()
def labels(model: Annotated[str, typer.Argument(help="Bundled name or model folder.")]) -> None:
    """Show each label's code as DICOM, 3D Slicer and reports get it, and where it is from."""
    from volseg.labels.dictionary import term_of
    from volseg.models import model_path
    from volseg.models.folder import read_model

    table = read_model(model_path(model)).manifest.recipe.label_table()
    unknown = 0
    for label in table:
        term = term_of(label.name)
        code, modifier, source = label.code, label.modifier, "the model"
        if code is None and term is not None:
            code, modifier, source = term.code, label.modifier or term.modifier, term.source
        if code is None:
            unknown += 1
            print(f"{label.value:5} {label.name}: no code; a private one is written")
        else:
            side = f", {modifier.meaning}" if modifier else ""
            print(f"{label.value:5} {label.name}: {code.scheme} {code.value} {code.meaning}{side} ({source})")
        if label.code is not None and term is not None and term.code.value != label.code.value:
            print(f"      the dictionary has {term.code.scheme} {term.code.value} {term.code.meaning} for it")
    if unknown:
        print(f"{unknown} of {len(table)} labels have no code: give them one in the recipe")


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write; must not exist.")],
    fold: Annotated[
        str | None, typer.Option("--fold", help="Pack this fold alone (a number, or all); every fold otherwise.")
    ] = None,
    average: Annotated[
        bool,
        typer.Option("--average", help="Average the weights of folds that fine-tuned one model; it isn't measured."),
    ] = False,
) -> None:
    """Make a model folder of a finished training run, with the post-processing that its held-out cases speak for."""
    from volseg.training.pack import pack_run

    folder = pack_run(run, output, fold, average=average)
    recipe = folder.manifest.recipe
    print(f"{output}: model {recipe.name} with fold {', '.join(folder.manifest.weights)}")
    kept = {rule.label for rule in recipe.postprocess if rule.largest_component}
    if names := [label.name for label in recipe.labels if label.value in kept]:
        print(f"its largest component alone is kept of: {', '.join(names)}")
    if average:
        print("the accuracy of averaged weights isn't measured: no case is unseen by all folds")


@app.command("import-nnunet")
def import_nnunet_(
    folder: Annotated[Path, typer.Argument(help="Results folder of nnU-Net v2: plans.json, dataset.json, fold_*.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write; must not exist.")],
    profile: Annotated[
        Literal["totalsegmentator"] | None, typer.Option(help="Whose choices around nnU-Net to keep.")
    ] = None,
    stage1: Annotated[
        Path | None, typer.Option(help="Results of a cascade's first stage, where they don't lie beside FOLDER.")
    ] = None,
) -> None:
    """Make a model folder of a trained nnU-Net v2."""
    from volseg.models.nnunet import import_nnunet

    model = import_nnunet(folder, output, profile, stage1)
    first = "" if model.stage1 is None else f"; first stage {model.stage1.manifest.recipe.name}"
    print(f"{output}: model {model.manifest.recipe.name} with fold {', '.join(model.manifest.weights)}{first}")
