"""NVIDIA's management library, where its driver is: energy, power and clocks of a device. Reads only."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from store import Skipped

_SM, _MEMORY = 1, 2
_CELSIUS = 0


class Nvml:
    """One device, through the library's C interface: no package is needed."""

    def __init__(self, device: torch.device) -> None:
        """Raises Skipped where there is no such library or device."""
        if device.type != "cuda" or torch.version.hip is not None:
            raise Skipped(f"NVML is for NVIDIA's devices, this is {device.type}")
        try:
            self._library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            raise Skipped(f"no NVML: {error}") from None
        self._call("nvmlInit_v2")
        self._handle = ctypes.c_void_p()
        # By its own name: the order of devices may be another here.
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        self._call("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(name), ctypes.byref(self._handle))

    def energy_j(self) -> float:
        """Joules since the driver was loaded; it counts in thousandths, about ten times a second."""
        return self._number(ctypes.c_ulonglong, "nvmlDeviceGetTotalEnergyConsumption") / 1e3

    def power_w(self) -> float:
        """Watts now, averaged as the device averages."""
        return self._number(ctypes.c_uint, "nvmlDeviceGetPowerUsage") / 1e3

    def state(self) -> dict[str, Any]:
        """Clocks in MHz, power in watts and temperature in degrees, as far as the device says."""
        asked = {
            "sm_mhz": ("nvmlDeviceGetClockInfo", _SM),
            "memory_mhz": ("nvmlDeviceGetClockInfo", _MEMORY),
            "temperature_c": ("nvmlDeviceGetTemperature", _CELSIUS),
        }
        found: dict[str, Any] = {}
        for name, (function, kind) in asked.items():
            try:
                found[name] = self._number(ctypes.c_uint, function, kind)
            except OSError as error:
                found[name] = str(error)
        try:
            found["power_w"] = self.power_w()
        except OSError as error:
            found["power_w"] = str(error)
        return found

    def _number(self, kind: Any, function: str, *given: int) -> int:
        value = kind()
        self._call(function, self._handle, *map(ctypes.c_int, given), ctypes.byref(value))
        return int(value.value)

    def _call(self, function: str, *given: Any) -> None:
        code = getattr(self._library, function)(*given)
        if code != 0:
            raise OSError(f"{function} answers {code}")
