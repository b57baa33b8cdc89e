"""`robusta-prob demo | select | fit | project | score | report`: a thin shell over the library.

`arguments` says what can be asked, `commands` and `choosing` do it; what they share, and all that prints or
touches `jax.config`, is in `shared`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import robusta_prob as rp
from robusta_prob.cli.arguments import parser
from robusta_prob.cli.choosing import run_select
from robusta_prob.cli.commands import run_demo, run_fit, run_project, run_score
from robusta_prob.cli.reporting import run_report
from robusta_prob.cli.shared import as_options, complain, keep_compiled, one_line, warn

ERRORS = (ValueError, TypeError, KeyError, OSError, FloatingPointError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0: done (a fit that did not converge warns); 1: the fit met a non-finite number; 2: an error of the
    input or the settings, in one line on stderr; 130: interrupted.

    Examples
    --------
    >>> main(["demo", "--objects", "300", "--pixels", "120", "-o", "demo"])  # doctest: +SKIP
    0
    """
    options = parser(rp.__version__).parse_args(argv)
    commands = {
        "demo": run_demo,
        "select": run_select,
        "fit": run_fit,
        "project": run_project,
        "score": run_score,
        "report": run_report,
    }
    keep_compiled()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=rp.DataWarning)
        warnings.filterwarnings("ignore", message=".*persistent compilation cache")
        warnings.showwarning = lambda message, *_, **__: warn(as_options(one_line(message), options))
        try:
            return commands[options.command](options)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            complain("interrupted", begin="\n")
            return 130
        except ERRORS as error:
            if options.debug:
                raise
            complain(f"error: {as_options(one_line(error), options)}")
            return 2
