"""How the experts' kernels are launched, by GPU and by rows an expert: a table, nothing is timed.

Timing a kernel waits for the device, which a graph that is being captured does not allow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """Of one kernel.

    Attributes:
        warps: of a program. With four, each has its own 16 rows of a fragment.
        stages: tiles on their way at once.
        maxnreg: registers a thread may have, where that can be said (NVIDIA), for more programs at once.
    """

    warps: int = 4
    stages: int = 2
    maxnreg: int | None = None

    def options(self) -> dict[str, int]:
        """As a launch's keywords."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return options if self.maxnreg is None else options | {"maxnreg": self.maxnreg}


@dataclass(frozen=True, kw_only=True)
class Configs:
    """Of the pair of products.

    Attributes:
        block: the most rows that a program takes; it takes 16 or 32 at once if there are no more.
        gate_up: the wide one.
        down: the narrow one.
        words: whether int4 is unpacked by instructions of NVIDIA's, four bytes at once.
    """

    block: int
    words: bool = False
    gate_up: Config = Config()
    down: Config = Config()


# (family, few rows an expert) -> launch. By what compiles without spills and leaves shared memory for three programs.
_TABLE = {
    ("sm90", True): Configs(block=32, words=True, gate_up=Config(stages=5), down=Config(stages=5)),
    ("sm90", False): Configs(block=64, words=True, gate_up=Config(stages=5), down=Config(stages=5)),
    ("sm80", True): Configs(block=32, words=True, gate_up=Config(stages=4), down=Config(stages=4)),
    ("sm80", False): Configs(block=64, words=True, gate_up=Config(stages=4), down=Config(stages=4, maxnreg=168)),
    # As many registers as they like: with fewer, compute capabilities 8.6, 8.9 and 12 spill.
    ("nvidia", True): Configs(block=32, words=True, gate_up=Config(stages=4), down=Config(stages=4)),
    ("nvidia", False): Configs(block=64, words=True, gate_up=Config(stages=4), down=Config(stages=4)),
    ("cdna", True): Configs(block=32),
    ("cdna", False): Configs(block=64),
    # 32 lanes a warp and 256 registers a lane: sums of 64 rows need eight of them.
    ("rdna", True): Configs(block=32),
    ("rdna", False): Configs(block=64, gate_up=Config(warps=8), down=Config(warps=8)),
}
# Of int4, where it wants other launches than those.
_INT4 = {
    # AMD's instructions for buffers, which are taken below 2 GB, leave too few registers to four warps.
    ("rdna", True): Configs(block=32, gate_up=Config(warps=8), down=Config(warps=8)),
}
_FALLBACK = {True: Configs(block=32), False: Configs(block=64)}
# Of 8 bits times 8 bits, whose tiles of weights have as many bytes as those of bfloat16 of half as many columns.
_NARROW = {
    ("sm90", True): Configs(block=32, gate_up=Config(stages=3), down=Config(stages=5)),
    ("sm90", False): Configs(block=64, gate_up=Config(stages=4), down=Config(stages=5)),
    ("sm80", True): Configs(block=32, gate_up=Config(stages=3), down=Config(stages=4)),
    ("sm80", False): Configs(block=64, gate_up=Config(stages=3), down=Config(stages=4)),
    ("nvidia", True): Configs(block=32, gate_up=Config(stages=3), down=Config(stages=4)),
    ("nvidia", False): Configs(block=64, gate_up=Config(stages=3), down=Config(stages=4)),
    # Eight warps, and no more rows, for the registers.
    ("rdna", True): Configs(block=32, gate_up=Config(warps=8), down=Config(warps=8)),
    ("rdna", False): Configs(block=32, gate_up=Config(warps=8), down=Config(warps=8)),
}
_FEW = 8.0


def family_of(backend: str, arch: int | str) -> str:
    """The GPUs that share a launch: sm90, sm80 (8.0 alone), nvidia (its others), cdna, rdna, or other."""
    if backend == "cuda":
        return "sm90" if int(arch) // 10 == 9 else "sm80" if int(arch) == 80 else "nvidia"
    if backend == "hip":
        return "cdna" if str(arch).startswith("gfx9") else "rdna"
    return "other"


def order_of(backend: str, arch: int | str) -> str:
    """The order of `packed.ORDERS` for a GPU."""
    return {"sm90": "wgmma", "sm80": "mma", "nvidia": "mma"}.get(family_of(backend, arch), "rows")


def configs_of(backend: str, arch: int | str, rows_per_expert: float, *, form: str = "") -> Configs:
    """The launch for a GPU.

    Args:
        backend: of Triton.
        arch: of the GPU.
        rows_per_expert: the mean.
        form: "int4"; "widened" where weights are e4m3 that is widened, for which RDNA does not have the registers
            beside 64 rows; "narrow" where weights and rows have 8 bits.
    """
    family = family_of(backend, arch)
    few = rows_per_expert <= _FEW or (form == "widened" and family == "rdna")
    if form == "narrow":
        return _NARROW.get((family, few), _FALLBACK[few])
    if form == "int4" and (family, few) in _INT4:
        return _INT4[family, few]
    return _TABLE.get((family, few), _FALLBACK[few])
