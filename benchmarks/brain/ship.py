"""Make a model folder of a training that goes on: ``python -m benchmarks.brain.ship RUN MAPS.csv CARD.md MODEL``.

`volseg model pack` is for finished runs. This takes the averaged weights of the last checkpoint, with the recipe as it
is in `pipelines/` now: labels' names and codes may have changed since the run began, its network and grid may not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from volseg.config import load_recipe
from volseg.datasets.cases import load_dataset
from volseg.models.folder import write_model
from volseg.training.checkpoint import LAST, load_checkpoint
from volseg.training.folds import split
from volseg.training.synthesis.maps import map_case
from volseg.training.trained_on import describe_training

RECIPE = Path(__file__).parents[2] / "pipelines" / "brain.yaml"
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    """Pack the last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "maps", "card", "model"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    recipe = load_recipe(RECIPE)
    synthesis = recipe.training.synthesis
    if synthesis is None:
        raise SystemExit(f"{RECIPE}: no synthesis")
    state = load_checkpoint(asked.run / "fold_all" / LAST)
    for part in ("network", "spacing_mm", "window", "orientation"):
        if state["recipe"][part] != recipe.model_dump(mode="json")[part]:
            raise SystemExit(f"{asked.run}: was trained with another {part}")
    cases, _ = split(load_dataset(asked.maps), recipe, None)
    progress = state["progress"]
    seconds = progress["history"][-1]["seconds"] if progress["history"] else 0.0
    described = describe_training(
        [map_case(case, recipe, synthesis) for case in cases], progress["step"], seconds, synthesis
    )
    results = RESULTS / "scores.json"
    metrics = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    card = asked.card.read_text(encoding="utf-8").replace("STEPS", str(progress["step"]))
    write_model(asked.model, recipe, described, {"all": state["average"]}, card=card, metrics=metrics)
    print(f"{asked.model}: step {progress['step']}")


if __name__ == "__main__":
    main()
