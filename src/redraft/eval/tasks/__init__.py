"""One file a task: its rows, what is asked of a model, which replies are right."""
