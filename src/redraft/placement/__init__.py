"""How the weights of a model lie on a machine, and in which form they are multiplied there. Knows no files."""
