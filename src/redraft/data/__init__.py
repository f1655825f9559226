"""Published data, made into files to train on and to measure with. Where this room is asked to, it fetches."""
