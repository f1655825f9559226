"""Presets: named sets of generation options. `redraft presets` prints them with what they measured.

They are named for what they do. What that is worth depends on the model: fewer steps are less time only where a step
costs the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "reference": {
        "settled_nats": 0.0, "settled_steps": 0, "handover_steps": 0, "adaptive_canvas": False, "plateau_steps": 0,
        "retry_empty": False, "redraft": 0, "tools": None,
    },
    "fast": {"handover_steps": 4},
    "trimmed": {"adaptive_canvas": True, "plateau_steps": 8, "retry_empty": True, "redraft": 0},
    "redrafted": {"adaptive_canvas": False, "plateau_steps": 8, "retry_empty": True, "redraft": 2},
}  # fmt: skip

MEANINGS: Mapping[str, str] = {
    "default": "what the model does unasked",
    "reference": "as the published sampler does it; replies are free",
    "fast": "what has not settled after four steps goes to the causal mode",
    "trimmed": "what lies behind a settled end goes; no progress, and it is given up",
    "redrafted": "what the causal mode doubts is drafted again, twice at most",
}
