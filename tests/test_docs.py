"""The documentation: its programs print the output shown, its commands run, and its links resolve.

Conventions of the pages:
- The ```python blocks of a page form one program. It runs in an empty folder.
- A ```text block directly after a ```python block is its complete output. A line `...` matches any number of lines.
- The ```sh blocks of a page that call `mobilenet-zoo` run after its program, in the same folder.
- Published weights come from a local hub server, which replaces them with seeded tensors.
- A ```py block in docs/api.md is a signature and must match the code. On other pages it is a fragment and must parse.
"""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from mobilenet_zoo.registry import WEIGHTS
from tests import hub_server, references, seeded

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
PACKAGES = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "mobilenet_v4",
    "mobilenet_zoo",
    "mobilenet_common",
    "mobilenet_runtime",
)

# Program of the child process that runs the blocks and captures the output of every block.
RUNNER = """
import contextlib, io, json, sys

blocks = json.load(sys.stdin)
namespace, outputs = {"__name__": "__main__"}, []
for file, line, code in blocks:
    with contextlib.redirect_stdout(io.StringIO()) as caught:
        exec(compile("\\n" * line + code, file, "exec"), namespace)
    outputs.append(caught.getvalue())
json.dump(outputs, open("outputs.json", "w"))
"""


FAST_PAGES = ("README.md", "docs/coming-from.md", "docs/guide.md")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced code block of a page.

    Attributes:
        language: The language after the opening fence.
        line: Line number of the opening fence.
        text: Content of the block.
        between: Text between the previous block and this one.
    """

    language: str
    line: int
    text: str
    between: str


def blocks_of(page):
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks, end = [], 0
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(match[1], line, match[2], text[end : match.start()]))
        end = match.end()
    return blocks


def programs():
    """Return `{page: [(block, expected output or None), ...]}` for the pages with Python programs."""
    pages = {}
    for page in PAGES:
        blocks = blocks_of(page)
        for block, next_block in itertools.zip_longest(blocks, blocks[1:]):
            if block.language == "python":
                has_output = next_block and next_block.language == "text" and not next_block.between.strip()
                pages.setdefault(page, []).append((block, next_block.text if has_output else None))
    return pages


def commands(page):
    """Return the `mobilenet-zoo` command lines of a page, each as a list of words."""
    lines = [line for block in blocks_of(page) if block.language == "sh" for line in block.text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("mobilenet-zoo ")]


@contextlib.contextmanager
def published(page, folder):
    """Run a hub with the weights that the page names, and yield the environment variables for its programs."""
    text = "".join(block.text for block in blocks_of(page) if block.language in ("python", "sh"))
    with hub_server.running() as hub:
        for name in (name for name in WEIGHTS if name in text and WEIGHTS[name].source == "timm"):
            shapes = references.checkpoints()[f"timm/{name.partition('.')[0]}"]["shapes"]
            path = folder / f"{name}.safetensors"
            save_file(seeded.state_dict(shapes), path)
            hub.files[WEIGHTS[name].repository, WEIGHTS[name].file] = path
        variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "hub"), "PYTHONPATH": str(ROOT)}
        yield {"OMP_NUM_THREADS": "1", **os.environ, "KERAS_BACKEND": "torch", **variables}


def run(page, blocks, folder, environment):
    """Run the blocks of a page in one child process and return the output of every block."""
    result = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([(page, block.line, block.text) for block in blocks]),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "outputs.json").read_text())


def matches(printed, shown):
    """Return whether the output matches the text shown, where a line `...` matches any number of lines."""
    lines = [line.rstrip() for line in shown.splitlines()]
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in lines)
    text = "".join(line.rstrip() + "\n" for line in printed.splitlines())
    return re.fullmatch(pattern, text) is not None


def page_parameters(pages):
    """Return pages as parameters; all but the pages that users read first are slow."""
    return [pytest.param(page, marks=[pytest.mark.slow] if page not in FAST_PAGES else []) for page in pages]


@pytest.mark.parametrize("page", page_parameters(programs()))
def test_programs_print_documented_output(page, tmp_path):
    program = programs()[page]
    with published(page, tmp_path) as environment:
        outputs = run(page, [block for block, _ in program], program_folder(tmp_path), environment)
    mismatches = [
        f"{page}:{block.line} shows\n{shown}but prints\n{printed}"
        for (block, shown), printed in zip(program, outputs, strict=True)
        if not matches(printed, shown or "")
    ]
    assert mismatches == [], "\n".join(mismatches)


def program_folder(tmp_path):
    """Create an empty folder for a page's program and return its path."""
    (tmp_path / "program").mkdir()
    return tmp_path / "program"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md" and commands(page)])
def test_documented_commands_run(page, tmp_path):
    """The page's program runs first and creates the files. The commands of README.md need the reader's images."""
    folder = program_folder(tmp_path)
    with published(page, tmp_path) as environment:
        run(page, [block for block, _ in programs()[page]], folder, environment)
        for words in commands(page):
            command = [sys.executable, "-c", "from mobilenet_cli import main; main()", *words[1:]]
            result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout}{result.stderr}"


def test_programs_and_commands_are_collected():
    pages = ("README.md", "docs/guide.md", "docs/custom-architectures.md", "docs/features.md", "docs/pretrained.md")
    assert set(pages) <= programs().keys()
    assert len(commands("docs/pretrained.md")) >= 6
    assert sum(shown is not None for _, shown in programs()["README.md"]) >= 10


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a\n", "a\nb\n", False),
        ("a\nx\ny\nb\n", "a\n...\nb\n", True),
        ("a\nb\n", "a\n...\nb\n", True),
        ("a\nx\n", "a\n...\nb\n", False),
        ("a.b\n", "a+b\n", False),
    ],
)
def test_output_comparison(printed, shown, same):
    assert matches(printed, shown) is same


def anchors(page):
    """Return the anchors that GitHub generates for a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    text = "".join(block for block in re.split(r"^```.*?^```$", (ROOT / page).read_text(), flags=re.M | re.S))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.resolve().is_relative_to(ROOT) or not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_within_limit(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    long_lines = [i for i, line in enumerate(lines, 1) if len(line) > 120 and not line.startswith("|")]
    assert long_lines == []


@pytest.mark.parametrize("page", PAGES)
def test_fragments_parse(page):
    for block in blocks_of(page):
        if block.language == "py" and page != "docs/api.md":
            ast.parse(block.text, f"{page}:{block.line}")


def signatures():
    """Return `(dotted name, arguments)` of the signatures in docs/api.md."""
    pairs = []
    for block in blocks_of("docs/api.md"):
        if block.language == "py":
            name, arguments = re.fullmatch(r"([\w.]+)(\(.*\))\n", block.text, re.DOTALL).groups()
            pairs.append((name, arguments))
    return pairs


@pytest.mark.parametrize(("name", "arguments"), signatures(), ids=[name for name, _ in signatures()])
def test_documented_signatures_match_code(name, arguments):
    module, _, attribute = name.rpartition(".")
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:  # a method
        outer, _, class_name = module.rpartition(".")
        owner = getattr(importlib.import_module(outer), class_name)
    actual = inspect.signature(getattr(owner, attribute))
    scope = vars(importlib.import_module("mobilenet_common.architecture"))
    shown = inspect.signature(eval(f"(lambda {arguments[1:-1]}: None)", dict(scope)))  # a trusted page

    def simplified(signature):
        parameters = [p for p in signature.parameters.values() if p.name != "self"]
        return [(p.name, p.kind, ... if type(p.default) is object else p.default) for p in parameters]

    assert simplified(shown) == simplified(actual)


def test_api_page_names_all_public_objects():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = {f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__}
    names |= {f"mobilenet_common.layers.{name}" for name in importlib.import_module("mobilenet_common.layers").__all__}
    assert sorted(name for name in names if name not in text) == []


def test_custom_architectures_page_names_all_fields():
    from mobilenet_common.architecture import Architecture, Dense, Head
    from mobilenet_common.rows import KINDS

    text = (ROOT / "docs" / "custom-architectures.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^#+ (.*?)$\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    kinds = {f"`{word}`": kind for word, kind in KINDS.items()}
    kinds |= {"The architecture": Architecture, "The head": Head, "`dense`": Dense}
    missing = [
        f"{title}: {field.name}"
        for title, kind in kinds.items()
        for field in dataclasses.fields(kind)
        if f"`{field.name}`" not in sections[title]
    ]
    assert missing == []


def test_documented_variant_count_is_correct():
    count = sum(len(importlib.import_module(f"mobilenet_v{i}").VARIANTS) for i in (1, 2, 3, 4))
    for page in ("README.md", "CHANGELOG.md"):
        assert re.findall(r"(\d+) variants", (ROOT / page).read_text(encoding="utf-8")) == [str(count)], page


@pytest.mark.slow
def test_generated_tables_are_up_to_date():
    result = subprocess.run(
        [sys.executable, "docs/build.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
