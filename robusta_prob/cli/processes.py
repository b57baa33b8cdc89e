"""`robusta-prob fit --distributed`: one process of several, under any launcher that JAX knows."""

from __future__ import annotations

import argparse

import jax


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--distributed`, and what to tell JAX where no launcher does."""
    add = parser.add_argument_group(
        "several processes", "All are started with the same command, and read the same file."
    ).add_argument
    add("--distributed", action="store_true", help="share the objects with the other processes of this run")
    add("--coordinator", metavar="HOST:PORT", help="of the first process; default: what the launcher says")
    add("--processes", type=int, metavar="N", help="how many there are; default: what the launcher says")
    add("--process", type=int, metavar="I", help="which this is, from 0; default: what the launcher says")


def join(options: argparse.Namespace) -> bool:
    """Meet the other processes; whether this one leads, which writes and speaks for all.

    Raises
    ------
    ValueError
        If only some of the three are given, or no launcher says who the others are.
    """
    given = (options.coordinator, options.processes, options.process)
    if not options.distributed:
        if given != (None, None, None):
            raise ValueError("--coordinator, --processes and --process are for --distributed")
        return True
    if None in given and given != (None, None, None):
        raise ValueError("give --coordinator, --processes and --process, all three, or none under a launcher")
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the other processes were not found ({error}); give --coordinator, --processes and --process"
        ) from error
    options.quiet = options.quiet or jax.process_index() > 0
    return jax.process_index() == 0
