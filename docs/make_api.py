"""Write api.md: every public function, from its docstring. `make docs`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import robusta_prob as rp
from robusta_prob import plots, report

PAGE = Path(__file__).with_name("api.md")
LISTS = ("Parameters", "Returns", "Yields", "Raises", "Attributes")
HEAD = """# API

Every public function, from its docstring: made by `make docs`. `import robusta_prob as rp`; pictures and the
page are in `from robusta_prob import plots, report`. N objects, M pixels, K components.
"""
ROOMS = {
    "Data": ("dataset", "Dataset", "DataWarning", "read", "write", "split"),
    "Fits": (
        "fit", "Fit", "Status", "Epoch", "Checkpoint", "Progress", "Noise", "NoiseLaw", "Prior", "anneal",
    ),
    "What a fit says": (
        "project", "Projection", "reconstruct", "reconstruct_sd", "residuals", "robust_weights",
        "posterior_draws", "Draw",
    ),
    "Surprise": (
        "surprise", "Surprise", "Null", "EmpiricalNull", "families", "Families", "score_columns",
        "write_scores", "write_windows",
    ),
    "How many components": ("select", "Selection", "write_selection", "relevance", "Relevance"),
    "What would have been found": ("inject", "Injected", "recovery", "Recovery"),
    "NumPyro": ("guide_for", "nuts", "Chains", "in_gauge_of", "to_arviz", "models"),
    "Results on disk": ("save", "load"),
    "Simulations": ("simulate",),
    "Pictures": (),
    "The page": (),
}  # fmt: skip


def entries(name: str) -> Iterator[tuple[str, Any]]:
    """A public name, or the public names of a public module."""
    found = getattr(rp, name)
    if not inspect.ismodule(found):
        yield f"rp.{name}", found
        return
    own = [one for one, what in vars(found).items() if getattr(what, "__module__", None) == found.__name__]
    for one in getattr(found, "__all__", [one for one in own if not one.startswith("_")]):
        yield f"rp.{name}.{one}", getattr(found, one)


def described(name: str, what: Any) -> str:
    """Heading, signature and docstring, as Markdown."""
    text = inspect.cleandoc(what.__doc__ or "")
    head, *sections = re.split(r"^(\w[\w ]+)\n-{3,}\n", text, flags=re.MULTILINE)
    parts = [f"### {name}"]
    if inspect.isfunction(what) or issubclass(what, tuple):
        parts.append(f"```text\n{name}{signature(what)}\n```")
    parts.append(head.strip())
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        shown = f"```pycon\n{body.strip()}\n```" if title == "Examples" else listed(title, body)
        parts.append(f"**{title}**\n\n{shown}")
    if "Attributes" not in sections and (fields := list(fields_of(what))):
        parts.append("**Fields**\n\n" + "\n".join(fields))
    if methods := public_methods(what):
        parts.append("**Methods**\n\n" + "\n".join(methods))
    return "\n\n".join(parts) + "\n"


def fields_of(what: Any, indent: str = "") -> Iterator[str]:
    """Of a data class or a named tuple, each with the comment on its line; those of tuples within, too."""
    if not (dataclasses.is_dataclass(what) or hasattr(what, "_fields")):
        return
    lines = inspect.getsource(what).splitlines()
    hints, public = vars(inspect.getmodule(what)), set(rp.__all__)
    for node in ast.parse("\n".join(lines)).body[0].body:
        if not isinstance(node, ast.AnnAssign) or node.target.id.startswith("_"):
            continue
        words = [lines[line - 1].partition("  # ")[2] for line in (node.lineno, node.end_lineno)]
        above = node.lineno - 2
        while lines[above].lstrip().startswith("# "):
            words.insert(0, lines[above].strip(" #"))
            above -= 1
        words = " ".join(dict.fromkeys(filter(None, words)))
        kind = ast.unparse(node.annotation)
        yield f"{indent}- `{node.target.id} : {shape_of(kind)}` {words}".rstrip()
        inner = hints.get(kind.partition(" | ")[0])
        if inspect.isclass(inner) and hasattr(inner, "_fields") and kind not in public:
            yield from fields_of(inner, indent + "  ")


def shape_of(annotation: str) -> str:
    """`Float[np.ndarray, 'objects rank']` as `(objects, rank) float array`."""

    def words(match: re.Match[str]) -> str:
        axes = match[2].split()
        return f"({', '.join(axes)}{',' if len(axes) == 1 else ''}) {match[1].lower()} array"

    found = re.sub(r"(Float|Int|Bool|Shaped)\[np\.ndarray, '([^']*)'\]", words, annotation)
    return found.replace("shaped array", "array")


def public_methods(what: Any) -> list[str]:
    """Of a class, each with the first sentence of its docstring."""
    lines = []
    for name, own in vars(what).items() if inspect.isclass(what) else ():
        function = own.fget if isinstance(own, property) else getattr(own, "__func__", own)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        call = (
            ""
            if isinstance(own, property)
            else signature(function).replace("(self, ", "(").replace("(self)", "()")
        )
        first = " ".join(inspect.cleandoc(function.__doc__).split("\n\n")[0].split())
        lines.append(f"- `{name}{call}` {first}")
    return lines


def listed(title: str, body: str) -> str:
    """A section of a numpydoc docstring: its entries as a list, or its text."""
    entries = re.split(r"^(?=\S)", body.strip(), flags=re.MULTILINE)[1:]
    if title not in LISTS:
        return body.strip()
    lines = []
    for entry in entries:
        term, _, text = entry.partition("\n")
        lines.append(f"- `{term.strip()}` {' '.join(text.split())}".rstrip())
    return "\n".join(lines)


def signature(what: Any) -> str:
    """Names and defaults; types are in the docstring."""
    found = inspect.signature(what)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)  # a default that is a function


def page() -> str:
    """All of it."""
    parts = [HEAD]
    for room, names in ROOMS.items():
        parts.append(f"## {room}\n")
        public = [entry for name in names for entry in entries(name)]
        for module, of in ((plots, "Pictures"), (report, "The page")):
            if room == of:
                short = module.__name__.rpartition(".")[2]
                public = [(f"{short}.{name}", getattr(module, name)) for name in module.__all__]
        parts += [described(*entry) for entry in public if callable(entry[1]) and entry[1].__doc__]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
