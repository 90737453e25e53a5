"""The wheel contains all files of the packages and no others, and imports add no heavy dependencies."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
GENERATIONS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenet_v4")
FOLDERS = {"mobilenet_common": "common"} | {
    name: name for name in (*GENERATIONS, "mobilenet_runtime", "mobilenet_zoo", "mobilenet_cli")
}


def run(*arguments, cwd, **variables):
    """Run Python in a child process and return its output."""
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def files_in(folder):
    """Return the paths of the source and data files under a folder, relative to it."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in files if "__pycache__" not in path.parts and not path.name.startswith(".")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a source distribution of a copy of the tree."""
    # A stale *.egg-info would add files to the source distribution that pyproject.toml doesn't list, so copy the tree.
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    # By default, `build` builds the sdist from the tree and the wheel from the sdist.
    run("-m", "build", "--no-isolation", cwd=tree)
    (path,) = (tree / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that contains only the installed wheel."""
    target = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def test_wheel_contains_exactly_the_files_of_the_packages(wheel):
    in_tree = {f"{name}/{path.as_posix()}" for name in FOLDERS for path in files_in(ROOT / FOLDERS[name])}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert sorted(in_tree - in_wheel) == [], "list the package or its data files in pyproject.toml"
    assert sorted(in_wheel - in_tree) == []
    assert {name.split("/")[0] for name in in_wheel} == set(FOLDERS)


def test_wheel_version_matches_packages(wheel):
    import mobilenet_runtime
    import mobilenet_zoo

    assert wheel.name.split("-")[1] == mobilenet_runtime.__version__ == mobilenet_zoo.__version__


def test_wheel_contains_license(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (license_file,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
        assert archive.read(license_file) == (ROOT / "LICENSE").read_bytes()


@pytest.fixture
def checkout_without_links(tmp_path):
    """A copy of the tree whose link is a text file, as Git checks it out on systems without symbolic links."""
    tree = tmp_path / "checkout"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in (*FOLDERS.values(), "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "mobilenet_common").write_text("common")
    return tree


@pytest.mark.slow
def test_editable_install_works_without_symbolic_links(checkout_without_links, tmp_path):
    run("-m", "venv", "--without-pip", str(tmp_path / "venv"), cwd=tmp_path)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # The dependencies, without the project.
    (packages / "others.pth").write_text(f"{Path(pytest.__file__).resolve().parents[1]}\n")
    python = tmp_path / "venv" / "bin" / "python"
    for command in (
        ("-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "-e", "."),
        ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/common/test_architecture.py"),
    ):
        result = subprocess.run(
            [python, *command],
            cwd=checkout_without_links,
            env=os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout


def test_installed_wheel_works_beside_foreign_common_package(installed, tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("FOREIGN = True\n")
    code = """if True:
        import json, sys
        import mobilenet_zoo, mobilenet_v4, mobilenet_common, common
        assert common.FOREIGN
        ours = {n: m.__file__ for n, m in sys.modules.items() if n.startswith("mobilenet_")}
        print(json.dumps(ours))
    """
    output = run("-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    modules = json.loads(output.splitlines()[-1])
    assert {"mobilenet_zoo", "mobilenet_v4", "mobilenet_common"} <= modules.keys()
    other_locations = {name: file for name, file in modules.items() if not Path(file).is_relative_to(installed)}
    assert other_locations == {}


@pytest.mark.parametrize(
    "backend", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("tensorflow", "jax")), "torch"]
)
def test_import_adds_only_light_dependencies_to_keras(backend):
    code = f"""if True:
        import json, sys
        import keras
        before = set(sys.modules)
        import {", ".join(GENERATIONS)}, mobilenet_zoo
        added = set(sys.modules) - before
        print(json.dumps([name for name in added if sys.modules[name].__spec__]))  # Cython's internal modules have none
    """
    output = run("-c", code, cwd=ROOT, KERAS_BACKEND=backend)
    added = {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}
    assert added - sys.stdlib_module_names - {*FOLDERS, "yaml", "_yaml", "safetensors"} == set()


def test_runtime_imports_neither_keras_nor_backend():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in python_files(ROOT / "mobilenet_runtime")
    ]
    code = f"""if True:
        import importlib, json, sys
        for name in {[name.removesuffix(".__init__") for name in modules]}:
            importlib.import_module(name)
        print(json.dumps(list(sys.modules)))
    """
    output = run("-c", code, cwd=ROOT)
    imported = {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}
    assert len(modules) > 8
    assert not imported & {"keras", "tensorflow", "jax", "torch", "mobilenet_zoo", *GENERATIONS}


def test_no_file_imports_common():
    offenders = []
    for path in python_files(ROOT):
        for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            if any(name.split(".")[0] == "common" for name in names):
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert offenders == []


def python_files(folder):
    """Yield the project's Python files, without links, hidden folders and virtual environments."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_dir() and not (path / "pyvenv.cfg").exists():
            yield from python_files(path)
        elif path.suffix == ".py":
            yield path
