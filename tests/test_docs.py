"""Every code block of the pages runs, every link leads somewhere, and the API page is that of the code."""

import doctest
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks_of(page, *languages):
    """Code with its first line's number, in the order of the page."""
    text = page.read_text()
    return [
        (found[1], found[2], text[: found.start(2)].count("\n"))
        for found in BLOCK.finditer(text)
        if found[1] in languages
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks_of(page, "python", "bash")], ids=lambda page: page.stem
)
def test_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    survey = rp.simulate.toy(300, 80, seed=4).data.with_grid(
        np.linspace(8460.0, 8700.0, 80), "wavelength [Å]"
    )
    rp.write(survey.take(slice(0, 240)), "spectra.h5")
    rp.write(survey.take(slice(240, 300)), "more.h5")
    names = {"__name__": "page"}
    for language, code, line in blocks_of(page, "python", "bash"):
        if language == "python":  # with the lines that an error would be looked for at
            exec(compile("\n" * line + code, str(page), "exec"), names)
            continue
        for command in code.splitlines():
            program, *arguments = shlex.split(command, comments=True)
            assert program == "robusta-prob" and main(arguments) == 0, command


def test_examples_of_docstrings_give_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = blocks_of(ROOT / "docs/api.md", "pycon")
    assert len(examples) > 30
    runner, told = doctest.DocTestRunner(verbose=False), []
    for _, code, line in examples:
        example = doctest.DocTestParser().get_doctest(code, {}, "api.md", "docs/api.md", line)
        runner.run(example, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_the_page_of_the_api_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs/make_api.py")
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    assert make_api.PAGE.read_text() == make_api.page(), "run `make docs`"
    assert set(rp.__all__) == {name for names in make_api.ROOMS.values() for name in names}
