"""Strings of a schema as regular expressions: formats, and the patterns that authors write."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redraft.core.errors import SchemaError

_DAYS = (
    "(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"  # no leap days
)
_DATE = f"(?:19|20)[0-9]{{2}}-{_DAYS}"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": "[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+){0,4}@[A-Za-z0-9]+(?:-[A-Za-z0-9]+){0,3}(?:\\.[A-Za-z]{2,10}){1,3}",
    "ipv4": rf"(?:{_BYTE}\.){{3}}{_BYTE}",
}
_TOKEN = re.compile(
    r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[:=!<P]?|\{[0-9]+(?:,[0-9]*)?\}|.",
    re.DOTALL,
)
_CLASSES = {
    "d": "[0-9]",
    "D": "[\x00-/:-\x7f]",
    "w": "[A-Za-z0-9_]",
    "W": "[[\x00-\x7f]&&[^A-Za-z0-9_]]",
    "s": "[ \t\n\r]",
    "S": "[^ \t\n\r]",
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_SYNTAX = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")


def literal(text: str) -> str:
    """The pattern of one text."""
    return _SYNTAX.sub(lambda found: "\\" + found[0], text)


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """How a notation writes the characters of a string.

    Attributes:
        plain: class of the characters that stand for themselves, without its brackets' negation: `[^...]`.
        character: pattern of any one character, escapes included.
        escapes: how characters that are not plain are written; others of them cannot be.
    """

    plain: str
    character: str
    escapes: dict[str, str]

    def written(self, text: str) -> str | None:
        """The text as the notation writes it; None where it cannot."""
        if any("\ud800" <= character <= "\udfff" for character in text):
            return None
        safe = re.compile(self.plain)
        parts = [character if safe.fullmatch(character) else self.escapes.get(character) for character in text]
        return None if None in parts else "".join(part for part in parts if part is not None)


JSON_STRING = Alphabet(
    plain='[^"\\\\\x00-\x1f\ue000-\ue0ff]',
    character='(?:[^"\\\\\x00-\x1f\ue000-\ue0ff]|\\\\["\\\\/bfnrt])',
    escapes={'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"},
)
CALL_STRING = Alphabet(plain="[^\ue000-\ue0ff]", character="[^\ue000-\ue0ff]", escapes={})


def translated(pattern: str, alphabet: Alphabet, path: str) -> str:
    """A schema's `pattern`, which may match anywhere in the string, as a pattern of the whole string as it is written.

    Classes and `.` mean plain characters only, which is less than they could.

    Raises:
        SchemaError: look-around, back references, anchors inside, or a character that the notation cannot write.
    """
    if not isinstance(pattern, str):
        raise SchemaError(path, f"must be a text, got {pattern!r:.60}")
    tokens = _TOKEN.findall(pattern)
    depth = 0
    for token in tokens:
        depth += token.startswith("(") - (token == ")")
        if depth < 0:
            break
    if depth:
        raise SchemaError(path, "its parentheses do not match")
    starts, ends = tokens[:1] == ["^"], tokens[-1:] == ["$"]
    body = tokens[starts : len(tokens) - ends]
    if (starts or ends) and _alternates(body):
        raise SchemaError(path, "put the alternatives in parentheses: it is unclear what ^ and $ belong to")
    parts = [_translated(token, alphabet, path) for token in body]
    around = f"{alphabet.character}*"
    return f"{'' if starts else around}(?:{''.join(parts)}){'' if ends else around}"


def _alternates(tokens: list[str]) -> bool:
    depth = 0
    for token in tokens:
        depth += token.startswith("(") - (token == ")")
        if token == "|" and depth == 0:
            return True
    return False


def _translated(token: str, alphabet: Alphabet, path: str) -> str:
    if token in ("(", "(?:", ")", "|", "*", "+", "?") or token.startswith("{"):
        return "(?:" if token == "(" else token
    if token == ".":
        return f"[[^\n\r]&&{alphabet.plain}]"
    if token.startswith("["):
        return f"[{_class(token, path)}&&{alphabet.plain}]"
    if token in ("^", "$") or token.startswith("(?") or token in ("\\b", "\\B") or re.fullmatch(r"\\[1-9kpP]", token):
        raise SchemaError(path, f"{token!r} cannot be enforced: anchors at the ends, classes, groups and counts can")
    if token[0] == "\\" and token[1] in _CLASSES:
        return f"[{_CLASSES[token[1]]}&&{alphabet.plain}]"
    written = alphabet.written(_character(token))
    if written is None:
        raise SchemaError(path, f"the character {token!r} cannot be written here")
    return literal(written) if len(written) == 1 else f"(?:{literal(written)})"


def _character(token: str) -> str:
    if token[0] != "\\":
        return token
    if len(token) > 2:
        return chr(int(token[2:], 16))
    return _CONTROLS.get(token[1], token[1])


def _class(token: str, path: str) -> str:
    """A bracketed class in the syntax of Rust: nested brackets, `&&`, `--` and `~~` mean something there."""
    inner = re.findall(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)|.", token[1:-1], re.DOTALL)
    negated = inner[:1] == ["^"]
    parts = []
    for part in inner[negated:]:
        if part == "-":
            parts.append("-")
        elif part[0] == "\\" and part[1] in _CLASSES:
            parts.append(_CLASSES[part[1]])
        elif part[0] == "\\" and part[1] in "bBpP":
            raise SchemaError(path, f"{part!r} in a class cannot be enforced")
        else:
            parts.append(literal(_character(part)))
    if parts and parts[0] == "-":
        parts[0] = "\\-"
    if parts and parts[-1] == "-":
        parts[-1] = "\\-"
    return f"[{'^' * negated}{''.join(parts)}]"
