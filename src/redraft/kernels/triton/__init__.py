"""Forms of the kernels in Triton, for GPUs of NVIDIA, AMD and Intel; nothing here is imported without Triton."""
