"""How the weights of a model are stored: every published form, ours, reading, writing, converting."""
