"""The shape of the code: imports go downward only, and files stay small."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "redraft"
LONGEST_FILE = 300

# Which rooms a room may import, besides itself. The face, `redraft/__init__.py`, may import what it shows.
MAY_IMPORT = {
    "core": set(),
    "kernels": {"core"},
    "sampler": {"core", "kernels"},
    "text": {"core"},
    "vision": {"core", "kernels"},
    "model": {"core", "kernels"},
    "placement": {"core", "kernels", "model"},
    "checkpoint": {"core", "kernels", "vision", "model", "placement"},
    "adapters": {"core", "kernels", "model", "placement", "checkpoint"},
    "decide": {"core", "text"},
    "engine": {
        *("core", "kernels", "vision", "model", "placement", "checkpoint", "adapters", "sampler", "text", "decide"),
    },
    "eval": {"core", "text", "decide"},
    "bench": {"core", "kernels", "engine", "model", "placement", "checkpoint", "adapters", "text"},
    "audit": {"core", "engine", "text"},
    "train": {"core", "kernels", "vision", "sampler", "model", "placement", "checkpoint", "adapters", "text"},
    "data": {"core", "text", "train", "decide"},
    "server": {"core", "text", "decide"},
    "cli": {"core", "text", "engine", "eval", "bench", "audit", "train", "data", "server", "checkpoint", "decide"}
    | {"adapters", "vision"},
}
WITHOUT_TORCH = {"core", "text", "server", "eval", "decide"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "redraft" and parts[1] in MAY_IMPORT else None


def rooms_broken_by(path: Path) -> set[str]:
    own = path.relative_to(PACKAGE).parts[0]
    reached = {room for module in imports(path) if (room := room_of(module))}
    return reached - MAY_IMPORT[own] - {own}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    own = path.relative_to(PACKAGE).parts[0]
    if path.parent == PACKAGE:
        pytest.skip("the face")
    assert own in MAY_IMPORT, f"{own} is no room: add it to the table and to docs/structure.md"
    assert not rooms_broken_by(path)
    if own in WITHOUT_TORCH:
        assert not {module for module in imports(path) if module.split(".")[0] == "torch"}


def modules_under(root: Path, prefix: str = "") -> dict[str, Path]:
    """Every file under a folder, by the name that it is imported by."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join([prefix, *parts] if prefix else parts).removesuffix(".__init__")] = path
    return found


def circle_among(modules: dict[str, Path]) -> list[str]:
    """Files that import each other in a loop, at their top or inside functions; empty where there is none."""
    graph = {name: {module for module in imports(path) if module in modules} for name, path in modules.items()}
    for name, path in modules.items():
        for module in imports(path):
            # Who takes a module out of a package takes nothing that the package itself defines.
            if module in modules:
                graph[name].discard(module.rpartition(".")[0])
        graph[name].discard(name)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("folder", ["src", "benchmarks", "benchmarks/gpu", "tests", "recipes", "examples"])
def test_no_files_import_each_other_in_a_circle(folder):
    assert circle_among(modules_under(ROOT / folder)) == []


def test_a_circle_is_found(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def f():\n    from c import d\n")
    (tmp_path / "c.py").write_text("from a import e\n")
    assert set(circle_among(modules_under(tmp_path))) == {"a", "b", "c"}
    (tmp_path / "c.py").write_text("from elsewhere import e\n")
    assert circle_among(modules_under(tmp_path)) == []


def test_the_rule_can_fail(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "core").mkdir()
    path = tmp_path / "core" / "bad.py"
    path.write_text("def f():\n    from redraft.engine import load\n")
    assert rooms_broken_by(path) == {"engine"}


def test_transformers_stays_outside():
    allowed = {"bench", "eval"}
    users = {p.relative_to(PACKAGE).parts[0] for p in FILES if any(m.startswith("transformers") for m in imports(p))}
    assert users <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_rooms_are_described():
    structure = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
    rooms = {path.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE}
    assert all(f"`{room}/`" in structure for room in rooms)
