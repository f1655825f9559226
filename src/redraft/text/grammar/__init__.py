"""Languages of replies: how they are written down, and how they become automata."""
