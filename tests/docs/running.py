"""Runs the Python of a page statement by statement, and looks whether what its comments show is what comes.

An expression whose comment is a literal must have that value: `reply.text  # 'good'`. What a statement prints must be
what stands below it in lines that begin with `# -> `.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import tokenize
import traceback
from typing import Any

from shown import difference

SHOWN = "# -> "


def run_python(source: str, names: dict[str, Any]) -> list[str]:
    """What is wrong with it; `names` are those that it finds and leaves."""
    tree = ast.parse(source)
    comments = _comments(source)
    lines = source.splitlines()
    names.setdefault("__name__", "page")
    wrong = []
    for node in tree.body:
        code = ast.get_source_segment(source, node) or ""
        end = node.end_lineno or 0
        printed = io.StringIO()
        value = None
        try:
            with contextlib.redirect_stdout(printed):
                if isinstance(node, ast.Expr):
                    value = eval(compile(ast.Expression(node.value), "page", "eval"), names)
                else:
                    exec(compile(ast.Module([node], []), "page", "exec"), names)
        except Exception:
            return [*wrong, f"line {node.lineno}: {code}\n{traceback.format_exc(limit=-3)}"]
        shown = [line[len(SHOWN) :] for line in itertools.takewhile(lambda l: l.startswith(SHOWN), lines[end:])]
        if shown and (differs := difference("\n".join(shown), printed.getvalue())):
            wrong.append(f"line {node.lineno}: {code}\n{differs}")
        if isinstance(node, ast.Expr) and (differs := _as_shown(value, comments.get(end))):
            wrong.append(f"line {node.lineno}: {code}\n{differs}")
    return wrong


def _as_shown(value: Any, comment: str | None) -> str | None:
    """How a value differs from the literal that a comment shows; None where it does not, or shows none."""
    if comment is None:
        return None
    try:
        shown = ast.literal_eval(comment)
    except (ValueError, SyntaxError):
        return None
    return None if value == shown else difference(repr(shown), repr(value))


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
