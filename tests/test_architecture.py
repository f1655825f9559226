"""The shape of the code: imports go downward only, and files stay small."""

from __future__ import annotations

import ast
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
    "model": {"core", "kernels"},
    "engine": {"core", "kernels", "model", "sampler", "text"},
    "eval": {"core", "text"},
    "bench": {"core", "kernels", "engine", "model", "text"},
    "audit": {"core", "engine", "text"},
    "train": {"core", "kernels", "sampler", "model", "text"},
    "server": {"core", "text"},
    "cli": {"core", "text", "engine", "eval", "bench", "audit", "train", "server", "model"},
}
WITHOUT_TORCH = {"core", "text", "server", "eval"}
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
