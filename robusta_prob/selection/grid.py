"""`select`: fits over a grid of ranks, and of robustness scales, judged by hidden cells of other objects."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Bool

from robusta_prob.data import Dataset
from robusta_prob.inference.initialise import Start
from robusta_prob.inference.iterate import Status
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.results import Fit
from robusta_prob.inference.storage import load
from robusta_prob.inference.threads import inherited
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior
from robusta_prob.selection.candidates import file_of, fitted, thinned
from robusta_prob.selection.held_out import Judgement, comparable, judge
from robusta_prob.selection.preparing import Prepared, checked_ranks, warn_of_guard
from robusta_prob.selection.results import Candidate, Selection, choose
from robusta_prob.selection.segments import Segments

LANES = 2  # ranks side by side, each begun at the second larger one: whatever the machine, the same results

Name = tuple[int, float | None]  # of a candidate: rank, scale


def select(
    data: Dataset,
    ranks: Iterable[int],
    scales: Iterable[float] | None = None,
    *,
    noise: Noise | None = None,
    prior: Prior | None = None,
    train: float = 0.5,
    group: str | Any = None,
    hidden: float = 0.2,
    guard: int | None = None,
    key: Array | int = 0,
    tol: float = 0.1,
    max_epochs: int = 60,
    folder: str | PathLike[str] | None = None,
    callback: Callable[[Rows], None] | None = None,
) -> Selection:
    """Choose the number of components, and of the published loss the robustness scale, by held-out density.

    Every candidate is fitted to one part of the objects. Of the others, contiguous segments are hidden;
    their coefficients are fitted to the rest, and the score is the log predictive density of the hidden
    cells, under the noise law that each fit learns from its own residuals. By default that law is also what
    is fitted, and only the rank is searched.

    Parameters
    ----------
    data : Dataset
        N objects x M pixels, in memory or on disk.
    ranks : sequence of int
        The ranks that compete, such as `range(1, 9)`.
    scales : sequence of float, optional
        Robustness scales Q: for each rank and scale the published loss is fitted, `Noise(1.0, Q, 0.0)` with
        `Prior.flat()`. Default: the noise law is learned, and needs no grid.
    noise, prior : optional
        As in `rp.fit`; `noise` without `scales` only.
    train : float
        Share of the objects (of the groups) that is fitted.
    group : str or (N,) array, optional
        A column of `data.meta`, or labels: objects of one group (repeat observations of a source) stay
        together, and count as one where errors are estimated.
    hidden : float
        Share of the pixels in hidden segments, up to 0.5.
    guard : int, optional
        Pixels on either side of a segment that are neither fitted nor judged, at most its width.
        Default: as far as residuals of the largest rank are correlated, at least one.
    key : JAX key or int
        Of the split, the segments and the fits.
    tol, max_epochs
        As in `rp.fit`; scales that begin at a neighbour's fit get half of the epochs. Ranks that are too
        small may never come to rest, which costs nothing but epochs.
    folder : path, optional
        Keep the fits there, one file each. Those that are there already, of the same data and settings, are
        not made again.
    callback : callable, optional
        Called with `Rows` as candidates are done, from a thread of its own, never twice at once;
        `rp.Progress("select")` is a progress bar.

    Returns
    -------
    Selection
        `.rank` (and `.scale`) is the choice, `.fit()` the chosen fit, `print` shows the table,
        `plots.selection` draws it.

    Raises
    ------
    ValueError
        If there is no rank, or an impossible one, scale or setting; if a file in `folder` is of other data
        or settings; if nothing is left to judge by; or in one of several processes.
    TypeError
        If an argument is of the wrong kind.
    FloatingPointError
        If a candidate does not stay finite.
    OSError
        If the folder cannot be written to.

    Notes
    -----
    The largest rank is fitted from all starts. Each of the others begins from the directions along which
    most objects vary in a larger one, in competition with the cheap starts; further scales begin at the fit
    of their neighbour. Two ranks run side by side, since compilation keeps one core busy; results do not
    depend on the number of cores.

    References
    ----------
    Breiman, Friedman, Olshen & Stone (1984), sec. 3.4.3, for the least model within some standard errors of
    the best; Vehtari & Lampinen (2002), Neural Computation 14, 2439, for predictive densities and their
    paired differences.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.low_rank(300, 60, 2, seed=1).data
    >>> rp.select(data, range(1, 4)).rank
    2
    """
    ranks, columns = checked_ranks(ranks), _checked_scales(scales, noise)
    own = Prepared.of(
        data,
        ranks,
        columns,
        noise=noise,
        prior=prior,
        train=train,
        group=group,
        hidden=hidden,
        guard=guard,
        key=key,
        tol=tol,
        max_epochs=max_epochs,
        folder=folder,
    )
    settings, total, lock, halt = own.settings, len(ranks) * len(columns), threading.Lock(), threading.Event()
    fits: dict[Name, Fit | Path] = {}
    trained: dict[Name, Bool[np.ndarray, " pixels"]] = {}
    told: dict[Name, Judgement] = {}
    status: dict[Name, Status] = {}
    firsts: dict[int, Future[Start]] = {rank: Future() for rank in ranks}
    hide: Future[Segments] = Future()
    failures: list[BaseException] = []

    def made(rank: int, scale: float | None, near: Fit | Start | None) -> Fit:
        if halt.is_set():
            raise InterruptedError("another candidate failed")
        return fitted(own.learn, rank, scale, settings, near, halt)

    def take(rank: int, scale: float | None, one: Fit) -> None:
        judgement = judge(one, own.rest, hide.result(), own.stride)
        with lock:
            name = rank, scale
            told[name], status[name], trained[name] = judgement, one.status, one.trained
            fits[name] = one if settings.folder is None else file_of(settings.folder, rank, scale)
            if callback is not None:
                callback(Rows(len(told), total, "select", " fits"))

    def column(rank: int) -> None:
        """All scales of a rank, each from its neighbour, the first of them from a larger rank."""
        larger = ranks[min(ranks.index(rank) + LANES, len(ranks) - 1)]
        first = made(rank, columns[0], firsts[larger].result() if larger > rank else None)
        firsts[rank].set_result(thinned(first))
        if rank == ranks[-1]:
            hide.set_result(own.hide(first))
        take(rank, columns[0], first)
        for away in outwards(columns):
            near = first
            for scale in away:
                near = made(rank, scale, near)
                take(rank, scale, near)

    def run(rank: int) -> None:
        try:
            if not failures:
                column(rank)
        except BaseException as error:  # the first is the cause of those that follow
            failures.append(error)
            halt.set()
            for one in firsts.values():  # or others would wait for ever
                _fail(one, error)
            _fail(hide, error)

    with ThreadPoolExecutor(LANES) as pool:
        running = [pool.submit(inherited(run), rank) for rank in ranks[::-1]]
        try:
            wait(running)
        except BaseException:  # an interruption from the keyboard
            halt.set()
            raise
    if failures:
        raise failures[0]
    warn_of_guard(hide.result())  # from here, and not from a thread: it may be made an error
    order = sorted(told, key=lambda name: (name[0], name[1] or 0.0))
    common = np.logical_and.reduce(list(trained.values()))
    for name in order:  # pixels that one fit left out of account are left out for all
        if (trained[name] != common).any():
            kept = fits[name]
            one = load(kept) if isinstance(kept, Path) else kept
            told[name] = judge(one, own.rest.without(~common), hide.result(), own.stride)
    judged, count = comparable([told[name] for name in order], ranks[-1])
    candidates = tuple(
        Candidate(*name, one.density, one.published, status[name])
        for name, one in zip(order, judged, strict=True)
    )
    chosen = choose(candidates, count, own.groups)
    return Selection(
        candidates,
        chosen,
        count,
        own.rest.ids,
        own.groups,
        hide.result(),
        {name: fits[name] for name in order},
    )


def _fail(waited: Future[Any], error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):  # it was done
        waited.set_exception(error)


def _checked_scales(scales: Any, noise: Noise | None) -> list[float | None]:
    """Distinct scales: the middle one, from which the others are reached, and these, ascending."""
    if scales is None:
        return [None]
    if noise is not None:
        raise ValueError("scales= fits the published loss, Noise(1.0, scale, 0.0): leave out noise=")
    given = [scales] if isinstance(scales, Real) else list(scales)
    for scale in given:
        if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < float(scale) < np.inf:
            raise ValueError(f"scales must be positive numbers, got {scale!r}")
    if not given:
        raise ValueError("scales is empty: leave it out to learn the noise law")
    ordered: list[float | None] = [*sorted({float(x) for x in given})]
    middle = len(ordered) // 2
    return [ordered[middle], *ordered[:middle], *ordered[middle + 1 :]]


def outwards(columns: Sequence[float | None]) -> tuple[Sequence[float | None], Sequence[float | None]]:
    """The scales below the first one, from the nearest on, and those above."""
    middle = len(columns) // 2
    return columns[middle:0:-1], columns[middle + 1 :]
