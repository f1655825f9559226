"""Formats of strings as patterns, and formats that are only remarks.

Of each format the ordinary texts are written: no leap days, addresses and hosts of ordinary length, no comments.
Source: RFC 3339 (dates), appendix A there (durations), RFC 4122, 5321, 1123, 4291, 3986, 6570, 6901; lengths are ours.
"""

from __future__ import annotations

from functools import cache

from redraft.text.grammar.nodes import Node
from redraft.text.grammar.regex import whole

_DAYS = (
    "(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"  # no leap days
)
_DATE = f"(?:19|20)[0-9]{{2}}-{_DAYS}"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_GROUP = "[0-9a-f]{1,4}"
_IPV6 = "|".join(
    [f"(?:{_GROUP}:){{7}}{_GROUP}", "::"]
    + [f"::{_GROUP}(?::{_GROUP}){{0,6}}"]
    + [f"{_GROUP}(?::{_GROUP}){{{before - 1}}}::(?:{_GROUP}(?::{_GROUP}){{0,{6 - before}}})?" for before in range(1, 7)]
    + [f"{_GROUP}(?::{_GROUP}){{6}}::"]
)
_T = "(?:T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S))"
_D = "(?:[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)"
_LABEL = "[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20}){0,2}"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,2}}"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL}){{0,1}}\.[A-Za-z]{{2,10}}"
_WIDE = "\u00a1-\u167f\u1681-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\u2fff\u3001-\ud7ff"
_REST = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})"
_BEHIND = rf"(?:/{_REST}{{0,300}})?(?:\?{_REST}{{0,150}})?(?:#{_REST}{{0,80}})?"
_URI = rf"https?://{_DOMAIN}(?::[1-9][0-9]{{0,3}})?{_BEHIND}"
_WIDE_REST = f"(?:{_REST}|[{_WIDE}])"
_IRI = (
    rf"https?://{_DOMAIN}(?::[1-9][0-9]{{0,3}})?(?:/{_WIDE_REST}{{0,300}})?"
    rf"(?:\?{_WIDE_REST}{{0,150}})?(?:#{_WIDE_REST}{{0,80}})?"
)
_PATH = (
    r"/?[A-Za-z0-9._~-]{1,80}(?:/[A-Za-z0-9._~-]{1,80}){0,8}(?:\?[A-Za-z0-9._~=&-]{0,80})?(?:#[A-Za-z0-9._~-]{0,80})?"
)
_LOCAL = "[A-Za-z0-9]{1,20}(?:[._+-][A-Za-z0-9]{1,20}){0,2}"
_WIDE_LOCAL = f"[A-Za-z0-9{_WIDE}]{{1,60}}"
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-%s[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_POINTER = '(?:/(?:[^/~\x00-\x1f"\\\\\x7f]|~[01])*)*'
_BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P(?:[0-9]{{1,4}}W|{_D}{_T}?|{_T})",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    **{f"uuid{version}": _UUID % version for version in range(1, 9)},
    "email": f"{_LOCAL}@{_DOMAIN}",
    "idn-email": f"{_WIDE_LOCAL}@{_DOMAIN}",
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": f"{_IPV4}|{_IPV6}",
    "ipv4interface": rf"{_IPV4}/(?:[12]?[0-9]|3[0-2])",
    "ipv4network": rf"(?:{_BYTE}\.){{3}}0/24|(?:{_BYTE}\.){{2}}0\.0/16|{_BYTE}\.0\.0\.0/8|{_IPV4}/32",
    "uri": _URI,
    "url": _URI,
    "iri": _IRI,
    "uri-reference": f"{_URI}|{_PATH}",
    "iri-reference": f"{_IRI}|{_PATH}",
    "uri-template": rf"{_URI}|(?:/(?:[A-Za-z0-9._~-]{{1,40}}|\{{[A-Za-z][A-Za-z0-9_]{{0,30}}\}})){{1,8}}",
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]{{0,3}})(?:#|{_POINTER})",
    "regex": "\\^?(?:[A-Za-z0-9_ ]|\\\\[dws.]|\\[[a-z]-z\\])+[*+?]?\\$?",
    "byte": _BASE64,
    "base64": _BASE64,
    "color": "#[0-9a-f]{6}",
}
# Remarks about a value that its other keywords describe.
REMARKS = {
    "password", "binary", "float", "double", "decimal", "number", "string", "integer", "int", "textarea", "text",
    "markdown", "html", "multiline", "path", "file-path", "directory-path",
}  # fmt: skip
RANGES = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    "uint": (0, 2**64 - 1),
}


@cache
def of_format(name: str) -> Node:
    """The strings of a format."""
    return whole(FORMATS[name])
