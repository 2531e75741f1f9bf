"""The tree of the repository: where things stand, how long files are, and what imports what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "causalvae_fast"

# From below to above. A module imports from its own layer and those below it.
LAYERS = (
    {"ops"},
    {"graph", "mechanisms"},
    {"posterior", "scale_tril"},
    {"divergence"},
    {"distribution", "prior"},
    {"models", "data", "metrics"},
    {"training", "figures", "discovery"},
    {"cli", "doctor"},
)
MOST_LINES = 450


def ops() -> set[str]:
    return {folder.name for folder in (PACKAGE / "ops").iterdir() if (folder / "__init__.py").exists()}


def sources(*suffixes: str) -> list[Path]:
    folders = ("causalvae_fast", "csrc", "tests", "bench", "examples")
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*")) if p.suffix in suffixes]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_ops() -> None:
    assert "sem_kl" in ops()


@pytest.mark.parametrize("op", sorted(ops()))
def test_an_op_has_its_room_in_each_tree(op: str) -> None:
    room = PACKAGE / "ops" / op
    expected = [room / "reference.py", room / "README.md", ROOT / "csrc" / "ops" / op / f"{op}.h"]
    expected += [ROOT / "tests" / "ops" / f"test_{op}.py", ROOT / "bench" / f"bench_{op}.py"]
    assert [name(path) for path in expected if not path.exists()] == []


def test_no_other_tree_has_an_op_that_the_package_lacks() -> None:
    assert {folder.name for folder in (ROOT / "csrc" / "ops").iterdir() if folder.is_dir()} <= ops()
    whole = {"vae_step"}  # what is benchmarked beside single ops
    assert {path.stem.removeprefix("bench_") for path in (ROOT / "bench").glob("bench_*.py")} <= ops() | whole


def test_files_are_short() -> None:
    lines = {name(p): len(p.read_text().splitlines()) for p in sources(".py", ".h", ".cpp", ".cu", ".cuh")}
    assert {path: length for path, length in lines.items() if length > MOST_LINES} == {}


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, without the package's name: "ops.sem_kl", "graph"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (n.removeprefix(f"{PACKAGE.name}.") for n in names if n.startswith(f"{PACKAGE.name}."))


def layer(module: str) -> int:
    top = module.split(".")[0]
    found = [level for level, tops in enumerate(LAYERS) if top in tops]
    assert found, f"{top} has no layer: say in LAYERS where it belongs"
    return found[0]


def test_nothing_imports_what_is_above_it() -> None:
    above = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE and path.stem in ("__init__", "__main__"):
            continue
        own = layer(path.relative_to(PACKAGE).with_suffix("").parts[0])
        modules = [module for module in imported(path) if not module.startswith("__version__")]
        above += [f"{name(path)} imports {module}" for module in modules if layer(module) > own]
    assert above == []


def test_only_the_bindings_know_pybind11() -> None:
    knowing = {name(p.parent) for p in sources(".h", ".cpp", ".cu", ".cuh", ".in") if "pybind11" in p.read_text()}
    assert knowing == {"csrc/bindings", "csrc/bindings/ops"}


def test_the_core_knows_no_torch() -> None:
    includes = ("#include <torch", "#include <ATen", "#include <c10")
    assert [
        name(p) for p in sources(".h", ".cpp", ".cu", ".cuh") if any(i in p.read_text() for i in includes)
    ] == []
