"""Forms of the kernels in Triton, for GPUs of NVIDIA, AMD and Intel; without Triton only `fallback` is imported."""
