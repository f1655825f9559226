"""C++ kernels, built by the compiler that is there and kept; without one, the torch forms run."""
