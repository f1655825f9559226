"""The shared vocabulary: options, events, results, errors and the `Engine` protocol. Imports nothing of ours."""
