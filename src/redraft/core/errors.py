"""Every error that redraft raises on purpose.

```
RedraftError
├── InputError                  the user can mend it; the command line exits with 2
│   ├── OptionError             an option has a value that cannot work         (also a ValueError)
│   │   └── SchemaError         a JSON schema beyond what can be enforced; carries the path of the keyword
│   ├── UnknownOptionError      an option that does not exist                  (also a TypeError)
│   ├── QuestionError           a typed question that cannot be asked; carries the field
│   ├── PromptError             an empty prompt, a message that is none
│   │   ├── ContextLengthError  prompt longer than the context; carries both lengths
│   │   └── ImageError          a picture that cannot be read; carries where it stands
│   ├── ModelNotFoundError      no such directory, bundled model or cached Hub id
│   ├── CheckpointError         a checkpoint that cannot be read: names the file, the field or the tensor
│   ├── DataError               a row of training or evaluation data; carries file and line
│   ├── RecipeError             a training recipe that cannot work
│   └── LossError               a training run whose loss is no number; carries the step
├── FetchError                  published data that cannot be had, or are not what was published
└── GenerationError             a request that failed while it ran; the others go on
```
"""


class RedraftError(Exception):
    """Base of every error below."""


class InputError(RedraftError):
    """Something the user gave cannot be used; the message says what and how to mend it."""


class OptionError(InputError, ValueError):
    """An option has a value that cannot work."""


class SchemaError(OptionError):
    """A JSON schema that cannot be enforced.

    Attributes:
        path: the keyword, from the schema's root on, with dots.
        option: which of the options holds the schema.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.option = path, "response_format"
        super().__init__(f"schema: {path or 'the root'}: {reason}")


class UnknownOptionError(InputError, TypeError):
    """An option that does not exist."""


class QuestionError(InputError, ValueError):
    """A typed question that cannot be asked.

    Attributes:
        field: of the question, such as "instructions" or "choices".
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field, self.reason = field, reason
        super().__init__(f"{field} {reason}")


class PromptError(InputError):
    """A prompt that cannot be read."""


class ContextLengthError(PromptError):
    """A prompt that does not fit the context.

    Attributes:
        prompt_tokens: length of the prompt in tokens.
        context_tokens: what the context can hold.
        image_tokens: how many of the prompt's stand for pictures.
    """

    def __init__(
        self, prompt_tokens: int, context_tokens: int, *, at_least: bool = False, image_tokens: int = 0
    ) -> None:
        """`at_least`: whether the prompt was too long to be counted."""
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens
        self.image_tokens = image_tokens
        pictures = f" ({image_tokens} of them for pictures)" if image_tokens else ""
        shorten = "shorten the prompt, give fewer image_tokens," if image_tokens else "shorten the prompt"
        super().__init__(
            f"the prompt has {'at least ' * at_least}{prompt_tokens} tokens{pictures}, the context holds "
            f"{context_tokens} (prompt and reply together): {shorten} or load with a larger max_context"
        )


class ImageError(PromptError):
    """A picture that cannot be read.

    Attributes:
        where: the file, or the message and its part; empty where there is one picture only.
        reason: what is wrong with it.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}" if where else reason)


class ModelNotFoundError(InputError):
    """No such model."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read or written."""


class DataError(InputError):
    """A row of data that cannot be used.

    Attributes:
        path: the file.
        reason: what is wrong with it.
        line: its line, from 1, or of Parquet, which has none, its row; 0 where it is the file itself.
    """

    def __init__(self, path: str, line: int, reason: str) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        unit = "row" if path.lower().endswith(".parquet") else "line"
        super().__init__(f"{path}, {unit} {line}: {reason}" if line else f"{path}: {reason}")


class RecipeError(InputError):
    """A training recipe that cannot work."""


class LossError(InputError):
    """A training run whose loss is no number.

    Attributes:
        step: the first such one, from 1.
    """

    def __init__(self, step: int, reason: str) -> None:
        self.step = step
        super().__init__(reason)


class FetchError(RedraftError):
    """Published data that cannot be had, or are not what was published."""


class GenerationError(RedraftError):
    """A request that failed while it ran."""
