"""The layout is a rule: which way imports point, who may print, how long a file is, what an import does."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "robusta_prob"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own room and from those above it. "" is robusta_prob/__init__.py.
ROOMS = (
    {"validate", "data", "stored", "partition"},
    {"io", "simulate"},
    {"models"},
    {"inference"},
    {"scoring"},
    {"selection", "diagnostics"},
    {"keeping"},
    {"plots", "report"},
    {""},
    {"cli", "__main__"},
)
ORDER = {room: place for place, rooms in enumerate(ROOMS) for room in rooms}
MAX_LINES = 320
LAZY = ("matplotlib", "umap", "arviz", "astropy", "pandas", "bokeh")  # slow to import, and needed by few


def module_of(file: Path) -> tuple[str, ...]:
    """Dotted name below the package, such as ("models", "noise"); () is the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def exists(module: tuple[str, ...]) -> bool:
    path = PACKAGE.joinpath(*module)
    return path.is_dir() or path.with_suffix(".py").is_file()


def room_of(module: tuple[str, ...]) -> str:
    return module[0] if module else ""


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def sources(file: Path, tree: ast.AST) -> Iterator[tuple[ast.ImportFrom, tuple[str, ...]]]:
    """All `from X import ...` in `file` where X, resolved, is the package or something in it."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file)[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                yield node, (*package[: len(package) - node.level + 1], *source)
            elif source[0] == PACKAGE.name:
                yield node, source[1:]


def imports(file: Path, tree: ast.AST) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, module) of all that `file` imports from the package, even in a function or for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root, *rest = alias.name.split(".")
                if root == PACKAGE.name:
                    yield node.lineno, tuple(rest)
    for node, source in sources(file, tree):
        for alias in node.names:  # `from robusta_prob import data` names the module, not the package
            inner = (*source, alias.name)
            yield node.lineno, inner if exists(inner) else source


def bound(init: Path) -> dict[str, tuple[str, ...] | None]:
    """What a package's __init__ calls by which name: a module of ours, or None for all else."""
    tree = parse(init)
    names: dict[str, tuple[str, ...] | None] = {
        node.name: None for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    for node, source in sources(init, tree):
        for alias in node.names:
            inner = (*source, alias.name)
            names[alias.asname or alias.name] = inner if exists(inner) else None
    return names


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE.parent))


def each_file(but: tuple[str, ...] | None = None) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", [f for f in FILES if module_of(f) != but], ids=name_of)


@each_file()
def test_belongs_to_a_room(file: Path) -> None:
    assert room_of(module_of(file)) in ORDER, f"{name_of(file)} is in no room: place it in ROOMS, or move it"


@each_file(but=())
def test_imports_point_one_way(file: Path) -> None:
    own = room_of(module_of(file))
    place = ORDER.get(own, 0)
    wrong = [
        f"line {line} imports {'.'.join((PACKAGE.name, *module))}"
        for line, module in imports(file, parse(file))
        if ORDER.get(room_of(module), len(ROOMS)) > place
    ]
    allowed = " -> ".join("/".join(sorted(rooms)) for rooms in ROOMS[: place + 1] if rooms != {""})
    assert not wrong, f"{name_of(file)}: {'; '.join(wrong)}; it may import from {allowed}"


@each_file(but=("cli", "shared"))
def test_only_the_cli_prints_or_configures_jax(file: Path) -> None:
    wrong = []
    for node in ast.walk(parse(file)):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                wrong.append(f"line {node.lineno} prints: use logging or a callback")
            case (
                ast.Attribute(value=ast.Name(id="jax"), attr="config")
                | ast.Attribute(attr="jax_enable_x64")
                | ast.Constant(value="jax_enable_x64" | "JAX_ENABLE_X64")
            ):
                wrong.append(f"line {node.lineno} touches jax.config: only cli/shared.py may")
            case ast.ImportFrom(module="jax", names=names) if any(alias.name == "config" for alias in names):
                wrong.append(f"line {node.lineno} imports jax.config: only cli/shared.py may")
    assert not wrong, f"{name_of(file)}: {'; '.join(wrong)}"


@each_file()
def test_file_is_short(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{name_of(file)} has {lines} lines, at most {MAX_LINES}: split it by concept"


@each_file(but=())
def test_no_module_bears_the_name_of_a_public_function(file: Path) -> None:
    """Importing it would put the module where the function was: `rp.surprise` would stop being callable."""
    module = module_of(file)
    for init in {PACKAGE / "__init__.py", PACKAGE.joinpath(*module[:-1], "__init__.py")}:
        named = bound(init).get(module[-1], module)
        assert named == module, f"{name_of(file)} bears a name that {name_of(init)} gives to something else"


@pytest.fixture(scope="module")
def fresh_import() -> dict[str, Any]:
    """What a process looks like that has done nothing but `import robusta_prob`."""
    program = """
import json, sys, robusta_prob, jax
seen = {"modules": sorted(sys.modules), "x64": jax.config.jax_enable_x64, "backend": False}
try:
    jax.config.update("jax_num_cpu_devices", 2)
except RuntimeError:  # a backend is up already
    seen["backend"] = True
json.dump(seen, sys.stderr)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=PACKAGE.parent, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"the import prints: {done.stdout}"
    return json.loads(done.stderr.splitlines()[-1])


def test_import_leaves_x64_off(fresh_import: dict[str, Any]) -> None:
    assert fresh_import["x64"] is False


def test_import_starts_no_backend(fresh_import: dict[str, Any]) -> None:
    """Otherwise `jax.distributed.initialize` and the number of devices could not be set any more."""
    assert fresh_import["backend"] is False


@pytest.mark.parametrize("package", LAZY)
def test_import_is_lazy(fresh_import: dict[str, Any], package: str) -> None:
    assert package not in fresh_import["modules"], f"import {package} inside the functions that need it"
