"""Training what is missing of an ablation."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm

from rbs.errors import RbsError
from rbs.multirun.ablation.plan import FULL, Plan
from rbs.multirun.runs import Run, work_through


def train(runs: Mapping[tuple[str, int], Run], plan: Plan, workers: int) -> None:
    """Train every run that has not finished; interrupted ones go on from their last checkpoint.

    Raises:
        RbsError: The first trainings all failed, or there is no full method to compare with.
    """
    # Seed by seed, so that what is there after an interruption is comparable.
    order = sorted(runs, key=lambda key: plan.seeds.index(key[1]))
    left = [runs[key] for key in order if runs[key].state != "finished"]
    with tqdm(total=len(runs), desc="training", unit="run") as bar:
        bar.update(len(runs) - len(left))
        work_through(
            lambda: left.pop(0) if left else None,
            workers=workers,
            ended=lambda run: bar.update(),
            group=plan.output.name,
        )
    for seed in plan.seeds:
        full = runs[FULL, seed]
        if full.state != "finished":
            raise RbsError(
                f"the full method did not finish with seed {seed} ({full.last_words()})",
                file=full.folder,
                remedy="mend what stopped it and give the command again",
            )
