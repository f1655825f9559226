"""Tasks and their graders. They see an engine through the `Engine` protocol, and nothing below it."""
