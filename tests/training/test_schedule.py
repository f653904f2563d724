"""Numbers worked out by hand: the learning rate and the moving average."""

from __future__ import annotations

import pytest
import torch

from volseg.config import TrainingConfig
from volseg.training.checkpoint import MovingAverage
from volseg.training.schedule import learning_rate


def rates(total: int, **changes: object) -> list[float]:
    config = TrainingConfig.model_validate({"learning_rate": 1.0, **changes})
    return [learning_rate(step, total, config) for step in range(total)]


def test_cosine_without_warmup() -> None:
    assert rates(4, warmup_fraction=0) == pytest.approx([1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5])


def test_the_warmup_rises_to_the_largest_rate_and_the_schedule_starts_there() -> None:
    assert rates(8, warmup_fraction=0.5) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5]
    )


def test_polynomial() -> None:
    assert rates(4, warmup_fraction=0, schedule="polynomial") == pytest.approx(
        [1, 0.7718895, 0.5358867, 0.2871746], abs=1e-7
    )


def test_constant() -> None:
    assert rates(5, warmup_fraction=0.4, schedule="constant") == pytest.approx([0.5, 1, 1, 1, 1])


@pytest.mark.parametrize(("total", "warmup"), [(20, 0.3), (50, 0.1), (7, 0.5)])
def test_one_cycle_is_that_of_torch(total: int, warmup: float) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    share = round(warmup * total) / total
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=total, pct_start=share, cycle_momentum=False
    )
    expected = []
    for _ in range(total):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if len(expected) < total:
            peer.step()
    assert rates(total, warmup_fraction=warmup, schedule="one_cycle") == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "one_cycle", "constant"])
def test_a_single_step_has_the_largest_rate(schedule: str) -> None:
    assert rates(1, schedule=schedule) == [1]


def test_the_average_starts_fast_and_ends_at_its_decay() -> None:
    average = MovingAverage({"w": torch.zeros(1)}, decay=0.3)
    seen = []
    for _ in range(3):
        average.update({"w": torch.ones(1)})
        seen.append(float(average.state["w"]))
    # Decays 2/11, 3/12, and 4/13 cut off at 0.3: what is left of the 0 is their product.
    assert seen == pytest.approx([1 - 2 / 11, 1 - 2 / 11 * 0.25, 1 - 2 / 11 * 0.25 * 0.3])


def test_without_decay_the_average_is_the_weights() -> None:
    average = MovingAverage({"w": torch.zeros(2)}, decay=0.0)
    average.update({"w": torch.tensor([1.5, -2.0])})
    assert average.state["w"].tolist() == [1.5, -2.0]


def test_the_average_copies_counters_and_leaves_the_weights_alone() -> None:
    state = {"w": torch.zeros(1), "batches": torch.tensor(0)}
    average = MovingAverage(state, decay=0.9)
    average.update({"w": torch.ones(1), "batches": torch.tensor(7)})
    assert (int(average.state["batches"]), float(state["w"])) == (7, 0.0)
