"""What each stage of the default recipe is for: `python benchmarks/ablation.py`.

Every case of `cases.py` without one of the stages at a time; the table shows the sine of the largest angle
to the truth as a multiple of the default's, where it differs by more than 2 %. Writes ABLATION.md.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from cases import CASES, RANK, survey
from contestant import HERE
from tqdm import tqdm

import robusta_prob as rp
from robusta_prob.inference import fitting, restart, start
from robusta_prob.inference.initialise import STARTS
from robusta_prob.simulate import largest_angle

OBJECT_SCALE, TAIL = rp.anneal.Robustness(1.0, 0.0), rp.anneal.Robustness(0.0, 1.0)


@contextlib.contextmanager
def beginning(robustness: rp.anneal.Robustness) -> Iterator[None]:
    """Starts and first passes with other robustness than the full one."""
    with contextlib.ExitStack() as stack:
        for module in (start, restart, fitting.anneal):
            stack.enter_context(mock.patch.object(module, "FULL", robustness))
        yield


def only(name: str) -> contextlib.AbstractContextManager[Any]:
    """One start, without competition."""
    return mock.patch.object(fitting, "STARTS", [x for x in STARTS if x.__name__ == name])


VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": (contextlib.nullcontext, {}),
    "no annealing of all objects": (contextlib.nullcontext, {"schedule": rp.anneal.constant()}),
    "no annealing at all": (
        lambda: beginning(rp.anneal.TARGET),
        {"schedule": rp.anneal.constant()},
    ),
    "object scale alone": (
        lambda: beginning(OBJECT_SCALE),
        {"schedule": rp.anneal.tightening(begin=OBJECT_SCALE)},
    ),
    "tail alone": (lambda: beginning(TAIL), {"schedule": rp.anneal.tightening(begin=TAIL)}),
    **{f"start {x.__name__} alone": (lambda name=x.__name__: only(name), {"starts": 1}) for x in STARTS},
    "no generous start": (contextlib.nullcontext, {"starts": 3}),
    "no restarts": (lambda: mock.patch.object(fitting, "RESTARTS", 0), {}),
    "no bad cells in the noise law": (contextlib.nullcontext, {"noise": rp.Noise(contamination=0.0)}),
    "half as long a schedule": (contextlib.nullcontext, {"schedule": rp.anneal.tightening(2, 1)}),
}


def main() -> None:
    """Run and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    todo = [(name, smooth) for name in options.cases for smooth in (True, False)]
    angles: dict[str, list[np.ndarray]] = {name: [] for name in VARIANTS}
    for name, smooth in tqdm(todo, desc="ablation"):
        for variant, (context, settings) in VARIANTS.items():
            row = []
            for seed in range(options.seeds):
                data = survey(CASES[name], seed, smooth=smooth)
                try:
                    with context():
                        fit = rp.fit(rp.dataset(data.flux, data.ivar), RANK, max_epochs=100, **settings)
                    row.append(largest_angle(fit.basis, data.basis))
                except FloatingPointError:  # every start ran off
                    row.append(math.inf)
            angles[variant].append(np.array(row))
    default = angles["default"]
    others = [variant for variant in VARIANTS if variant != "default"]
    lines = [
        "# What each stage is for",
        "",
        "The angle to the truth without a stage, as a multiple of the default's (the worst of the seeds),",
        "where it differs by more than 2 % in any column.",
        "",
        f"| case | {' | '.join(others)} |",
        "|---" * (1 + len(others)) + "|",
    ]
    for place, (name, smooth) in enumerate(todo):
        ratios = [float((angles[variant][place] / default[place]).max()) for variant in others]
        if max(abs(ratio - 1) for ratio in ratios) > 0.02:
            cells = " | ".join(f"**{x:.3g}**" if x > 1.02 else f"{x:.2f}" for x in ratios)
            lines.append(f"| {name}, {'smooth' if smooth else 'rough'} | {cells} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (HERE / "ABLATION.md").write_text(text)


if __name__ == "__main__":
    main()
