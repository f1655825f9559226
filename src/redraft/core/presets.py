"""Presets: named sets of generation options. `redraft presets` prints them with what they measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "reference": {"adaptive_canvas": False, "plateau_steps": 0, "retry_empty": False, "redraft": 0, "tools": None},
    "balanced": {"adaptive_canvas": True, "plateau_steps": 8, "retry_empty": True, "redraft": 0},
    "fast": {"adaptive_canvas": True, "plateau_steps": 4, "retry_empty": True, "entropy_bound": 0.3, "redraft": 0},
    "careful": {"adaptive_canvas": False, "plateau_steps": 8, "retry_empty": True, "redraft": 2},
}
