"""Every link of the course leads somewhere: in its Markdown files and in the text of its notebooks.

Within the repository, the file must be there and so must the heading after `#`. Addresses elsewhere
are not fetched, but must be well-formed and https. `python tests/test_links.py` prints dead links.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOT_COMMITTED = ("results", "data/cache")  # and what begins with a dot

_CODE = re.compile(r"^(```+|~~~+).*?^\1|(`+)(?!`).+?(?<!`)\2(?!`)", re.M | re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_LINK = re.compile(r"\]\(\s*(?:<([^>\n]*)>|((?:[^\s()]|\([^\s()]*\))*))(?:\s+[\"'(][^\n]*?)?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]+\]:\s+<?(\S+?)>?(?:\s.*)?$", re.M)
_HTML = re.compile(r"<[^>]*?\s(?:href|src)=[\"']([^\"']*)[\"']")
_BARE = re.compile(r"(?<![\"'(=\w])https?://[^\s<>\"')\]]+")
_HEADING = re.compile(r"^ {0,3}#{1,6} +(.+?) *#* *$", re.M)
_ANCHOR = re.compile(r"<[^>]*?\s(?:id|name)=[\"']([^\"']+)[\"']")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")


def documents(root: Path) -> list[Path]:
    """The Markdown files and notebooks that are committed under `root`."""
    found = [*root.rglob("*.md"), *(root / "notebooks").rglob("*.ipynb")]
    return sorted(path for path in found if _committed(path.relative_to(root)))


def dead_links(path: Path, root: Path) -> list[str]:
    """Every link of `path` that leads nowhere, with the reason."""
    found = ((target, _problem(target, path, root)) for target in links(text_of(path)))
    return [f"{target}: {problem}" for target, problem in found if problem]


def text_of(path: Path) -> str:
    """A Markdown file, or the Markdown cells of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def links(text: str) -> Iterator[str]:
    """The targets of all links and pictures, as they are written; code and comments hold none."""
    text = _CODE.sub("", _COMMENT.sub("", text))
    for match in _LINK.finditer(text):
        yield match[1] if match[1] is not None else match[2]
    for pattern in (_REFERENCE, _HTML):
        yield from (match[1] for match in pattern.finditer(text))
    yield from (match[0].rstrip(".,;:!?") for match in _BARE.finditer(_REFERENCE.sub("", text)))


def _problem(target: str, path: Path, root: Path) -> str | None:
    if re.match(r"[a-zA-Z][\w+.-]*:", target):
        return _outside(target)
    file, _, anchor = target.partition("#")
    if not file and not anchor:
        return "empty"
    if file.startswith("/"):
        return "absolute; a link is relative to its file"
    there = (path.parent / unquote(file)).resolve() if file else path.resolve()
    if not there.is_relative_to(root.resolve()):
        return "leaves the repository"
    within = there.relative_to(root.resolve())
    if not _exists(within, root.resolve()):
        return "no such file"
    if not _committed(within):
        return "not committed, so not there in a clone"
    if anchor and unquote(anchor) not in anchors(there):
        return "no such heading"
    return None


def _outside(target: str) -> str | None:
    parts = urlsplit(target)
    if parts.scheme != "https":
        return f"begins with {parts.scheme}:, not https:"
    if not _HOST.fullmatch((parts.hostname or "").lower()):
        return "no host that others can reach"
    return None


def _exists(within: Path, root: Path) -> bool:
    """Also where the disk takes upper and lower case for the same."""
    here = root
    for part in within.parts:
        if not here.is_dir() or part not in {child.name for child in here.iterdir()}:
            return False
        here /= part
    return True


def _committed(within: Path) -> bool:
    hidden = any(part.startswith(".") for part in within.parts[:-1])
    return not hidden and not any(within.is_relative_to(folder) for folder in NOT_COMMITTED)


def anchors(path: Path) -> set[str]:
    """What may stand after `#` in a link to this file.

    On GitHub a heading is known by its words in lower case, without punctuation, joined by hyphens;
    in JupyterLab by its text with hyphens for spaces. Notebooks are read in JupyterLab; Markdown on
    GitHub, and in `notebooks/` in both: there only what both understand will do.
    """
    text = _CODE.sub(lambda code: "" if code[1] else code[0], text_of(path))
    titles = [_plain(match[1]) for match in _HEADING.finditer(text)]
    in_lab = {title.replace(" ", "-") for title in titles}
    if path.suffix == ".ipynb":
        return in_lab
    on_github, seen = set(_ANCHOR.findall(text)), {}
    for title in titles:
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        on_github.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return on_github & in_lab if path.parent.name == "notebooks" else on_github


def _plain(title: str) -> str:
    """A heading's words without their Markdown."""
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[`*]|<[^>]*>", "", title)


@pytest.mark.parametrize("path", documents(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    dead = dead_links(path, ROOT)
    assert not dead, "\n".join(dead)


def test_the_documents_are_found():
    found = {str(path.relative_to(ROOT)) for path in documents(ROOT)}
    assert {"README.md", "data/README.md", "notebooks/README.md"} <= found
    assert "notebooks/00_meet_the_scenes.ipynb" in found
    assert not any(".ipynb_checkpoints" in name or name.startswith("results") for name in found)


# ---- each rule can be broken ----


@pytest.fixture
def repository(tmp_path):
    for name in ("docs", "data", "notebooks", "results", ".venv"):
        (tmp_path / name).mkdir()
    (tmp_path / "docs" / "Guide.md").write_text(
        "# A *fine* guide\n\n## Use\n\n## Use\n\n`## Code`\n"
    )
    (tmp_path / "docs" / "two words.md").write_text('<a id="here"></a>\n```\n# comment\n```\n')
    (tmp_path / "results" / "index.html").write_text("made")
    (tmp_path / ".venv" / "x.md").write_text("[dead](dead.md)")
    cells = [
        nbformat.v4.new_markdown_cell("## 2 · By hand\n[up](../docs/Guide.md#use)"),
        nbformat.v4.new_code_cell("# [not a link](nowhere.md)"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "00_a.ipynb")
    return tmp_path


def in_readme(text, repository):
    path = repository / "README.md"
    path.write_text(text)
    return dead_links(path, repository)


ALIVE = [
    "[a](docs/Guide.md)",
    "[a](docs/Guide.md 'A title')",
    '[a]( docs/Guide.md "A (better) title" )',
    "![a](docs/Guide.md)",
    "[a](docs)",
    "[a](docs/)",
    "[a](docs/../docs/Guide.md)",
    "[a](docs/two%20words.md)",
    "[a](<docs/two words.md>)",
    "[a](docs/two%20words.md#here)",
    "[a](docs/Guide.md#a-fine-guide)",
    "[a](docs/Guide.md#use)",
    "[a](docs/Guide.md#use-1)",
    "[a](notebooks/00_a.ipynb)",
    "[a](notebooks/00_a.ipynb#2-%C2%B7-By-hand)",
    "# Here & now\n[a](#here--now)",
    "[a][b]\n\n[b]: docs/Guide.md",
    '<img src="docs/Guide.md" alt="a">',
    "https://example.org/a_(b)?c#d, and <https://example.org>.",
    "[a](https://example.org/a_(b))",
    "`[a](nowhere.md)` and ``b ` [a](nowhere.md)``",
    "```\n[a](nowhere.md)\n```",
    "~~~\n[a](nowhere.md) http://example.org\n~~~",
    "<!-- [a](nowhere.md) -->",
]


@pytest.mark.parametrize("text", ALIVE)
def test_what_leads_somewhere_is_left_alone(text, repository):
    assert in_readme(text, repository) == []


DEAD = {
    "[a](docs/guide.md)": "docs/guide.md: no such file",
    "[a](nowhere.md)": "nowhere.md: no such file",
    "![a](nowhere.jpg)": "nowhere.jpg: no such file",
    "`b` [a](nowhere.md) `c`": "nowhere.md: no such file",
    "```\ncode\n```\n[a](nowhere.md)\n```\ncode\n```": "nowhere.md: no such file",
    "[![a](docs/Guide.md)](nowhere.md)": "nowhere.md: no such file",
    "[a][b]\n\n[b]: nowhere.md": "nowhere.md: no such file",
    "<a href='nowhere.md'>a</a>": "nowhere.md: no such file",
    "[a](docs/Guide.md/more)": "docs/Guide.md/more: no such file",
    "[a](docs/Guide.md#misuse)": "docs/Guide.md#misuse: no such heading",
    "[a](docs/Guide.md#Use)": "docs/Guide.md#Use: no such heading",
    "[a](docs/Guide.md#use-2)": "docs/Guide.md#use-2: no such heading",
    "[a](docs/Guide.md#code)": "docs/Guide.md#code: no such heading",
    "[a](docs/two%20words.md#comment)": "docs/two%20words.md#comment: no such heading",
    "[a](notebooks/00_a.ipynb#by-hand)": "notebooks/00_a.ipynb#by-hand: no such heading",
    "[a](#here)": "#here: no such heading",
    "[a]()": ": empty",
    "[a](/docs/Guide.md)": "/docs/Guide.md: absolute; a link is relative to its file",
    "[a](../outside.md)": "../outside.md: leaves the repository",
    "[a](results/index.html)": "results/index.html: not committed, so not there in a clone",
    "[a](.venv/x.md)": ".venv/x.md: not committed, so not there in a clone",
    "[a](http://example.org)": "http://example.org: begins with http:, not https:",
    "see http://example.org.": "http://example.org: begins with http:, not https:",
    "[a](file:///tmp/x)": "file:///tmp/x: begins with file:, not https:",
    "[a](https://localhost:8888/lab)": "https://localhost:8888/lab: no host that others can reach",
    "[a](https://)": "https://: no host that others can reach",
}


@pytest.mark.parametrize(("text", "told"), DEAD.items())
def test_what_leads_nowhere_is_named(text, told, repository):
    assert in_readme(text, repository) == [told]


def test_notebooks_are_read_by_their_text(repository):
    notebook = repository / "notebooks" / "00_a.ipynb"
    assert dead_links(notebook, repository) == []
    (repository / "docs" / "Guide.md").unlink()
    assert dead_links(notebook, repository) == ["../docs/Guide.md#use: no such file"]


def test_the_syllabus_is_read_in_two_places(repository):
    path = repository / "notebooks" / "README.md"
    path.write_text("# Glossary\n# twice\n[a](#glossary) [b](#Glossary) [c](#twice)")
    dead = ["#glossary: no such heading", "#Glossary: no such heading"]
    assert dead_links(path, repository) == dead


def test_documents_are_those_of_a_clone(repository):
    (repository / "results" / "notes.md").write_text("[dead](dead.md)")
    found = [str(path.relative_to(repository)) for path in documents(repository)]
    assert found == ["docs/Guide.md", "docs/two words.md", "notebooks/00_a.ipynb"]


if __name__ == "__main__":
    dead = {str(path.relative_to(ROOT)): dead_links(path, ROOT) for path in documents(ROOT)}
    print(json.dumps({name: found for name, found in dead.items() if found}, indent=2))
    sys.exit(any(dead.values()))
