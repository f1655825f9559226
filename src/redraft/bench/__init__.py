"""Workloads, the processes that run them, and reports."""
