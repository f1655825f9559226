"""From conversations to ids: a prompt and the response that is learned, for each assistant turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from redraft.core.errors import DataError, PromptError
from redraft.text.chat import ChatTemplate
from redraft.text.conversations import THOUGHTS, Conversation
from redraft.text.image_parts import Shown
from redraft.text.markers import QUOTE, RESPONSE_CLOSE, RESPONSE_OPEN
from redraft.text.prompt_text import PromptText
from redraft.text.tokenizer import Tokenizer
from redraft.train.pictures import NoPictures, Pictures, RowPicture


@dataclass(frozen=True)
class Example:
    """A prompt and the response that the model should give to it.

    Attributes:
        prompt: ids up to where the reply begins.
        response: ids up to and with end-of-turn.
        values: for each response id, whether it stands inside an argument's value.
        complete: False where the response was cut to fit, so that it has no real end.
        told: for each id of the prompt, whether a tool has said it or a picture stands there; empty where none has.
        pictures: those of the prompt.
    """

    prompt: list[int]
    response: list[int]
    values: list[bool]
    complete: bool = True
    told: list[bool] = field(default_factory=list)
    pictures: tuple[RowPicture, ...] = ()


def rendered(
    template: ChatTemplate, conversation: Conversation, path: str, upto: int | None = None, **how: bool
) -> str:
    """A conversation's first messages as text, its tools declared as they are at inference.

    Raises:
        DataError: the template refuses them.
    """
    try:
        return template.render(conversation.messages[:upto], tools=conversation.tools, images=[], **how)
    except PromptError as error:
        raise DataError(path, conversation.line, str(error)) from None
    except RecursionError:
        raise DataError(path, conversation.line, "nests too deeply for the chat template") from None


class Encoder:
    """Renders and tokenizes conversations."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        max_length: int,
        pictures: Pictures | NoPictures | None = None,
    ) -> None:
        self.tokenizer, self.template, self.max_length = tokenizer, template, max_length
        self.pictures = pictures or NoPictures("there is no model here to see it")
        self.quote = tokenizer.id_of(QUOTE)
        self.result = (tokenizer.id_of(RESPONSE_OPEN), tokenizer.id_of(RESPONSE_CLOSE))
        self.ends = set(tokenizer.end_of_turn_ids())

    def examples(self, conversation: Conversation, path: str) -> list[Example]:
        """One example for each assistant turn of the row's own; turns whose prompt leaves no room are left out.

        Raises:
            DataError: see `whole`.
        """
        fitted = (self.fitted(example) for example in self.whole(conversation, path))
        return [example for example in fitted if example is not None]

    def whole(self, conversation: Conversation, path: str) -> list[Example]:
        """The same, of whatever length, without those of turns of weight 0.

        Raises:
            DataError: the template refuses the conversation or leaves a field of it out, or no turn is to be learned.
        """
        turns = [
            place
            for place, message in enumerate(conversation.messages)
            if place >= conversation.context and message["role"] == "assistant" and message.get("weight") != 0
        ]
        if not turns:
            raise DataError(path, conversation.line, "has no assistant message to learn from")
        self._check_names(conversation, path)
        return [self._example(conversation, path, turn) for turn in turns]

    def fitted(self, example: Example) -> Example | None:
        """The example, its response cut to `max_length`; None where not even its first token would fit."""
        room = self.max_length - len(example.prompt)
        if room < 1:
            return None
        complete = len(example.response) <= room
        return replace(example, response=example.response[:room], values=example.values[:room], complete=complete)

    def _example(self, conversation: Conversation, path: str, turn: int) -> Example:
        images: list[Shown] = []
        before = self._text(conversation, path, turn, images)
        whole = self._text(conversation, path, turn + 1, [], add_generation_prompt=False)
        reply = whole.after(before)
        if reply is None:
            reason = f"the chat template rewrites the prompt when the reply, message {turn}, is added"
            raise DataError(path, conversation.line, reason)
        message = conversation.messages[turn]
        for thought in {message[name] for name in THOUGHTS if message.get(name)}:
            fields = [name for name in THOUGHTS if message.get(name) == thought]
            self._check_printed(conversation, path, turn, fields, whole.text)
        try:
            prompt, response = before.encode(self.tokenizer), reply.encode(self.tokenizer)
            prompt, pictures = self.pictures.laid_out(prompt, images)
        except PromptError as error:
            raise DataError(path, conversation.line, str(error)) from None
        end = next((i for i, token in enumerate(response) if token in self.ends), len(response) - 1)
        response = response[: end + 1]
        told = self._told(prompt, pictures)
        return Example(prompt, response, self._values(response), told=told, pictures=pictures)

    def _text(self, conversation: Conversation, path: str, upto: int, images: list[Shown], **how: bool) -> PromptText:
        """The first messages; what others than the model have said is text, as it is at inference."""
        messages = conversation.messages[:upto]
        try:
            return self.template.prompt(
                self.tokenizer, messages, tools=conversation.tools, own=("assistant",), images=images, **how
            )
        except PromptError as error:
            raise DataError(path, conversation.line, str(error)) from None

    def _check_names(self, conversation: Conversation, path: str) -> None:
        # A tool's name stands in the call that it answers; who else speaks is known from the name alone.
        for place, message in enumerate(conversation.messages):
            if message.get("name") and message["role"] != "tool":
                text = rendered(self.template, conversation, path, place + 1, add_generation_prompt=False)
                self._check_printed(conversation, path, place, ["name"], text)

    def _check_printed(self, conversation: Conversation, path: str, place: int, fields: list[str], text: str) -> None:
        """Fields that the template leaves out would be dropped without a word."""
        message = {name: value for name, value in conversation.messages[place].items() if name not in fields}
        without = replace(conversation, messages=[*conversation.messages[:place], message])
        if rendered(self.template, without, path, add_generation_prompt=False) == text:
            reason = f"message {place} has {fields[0]!r}, which the chat template does not print: take it out"
            raise DataError(path, conversation.line, reason)

    def _told(self, prompt: list[int], pictures: tuple[RowPicture, ...]) -> list[bool]:
        first, last = self.result
        if first not in prompt and not pictures:
            return []
        inside, marks = False, []
        for token in prompt:
            inside = inside or token == first
            marks.append(inside)
            inside = inside and token != last
        for picture in pictures:
            # With what stands around it: nothing of a picture is for a model to foretell.
            marks[picture.start - 1 : picture.end + 1] = [True] * (picture.tokens + 2)
        return marks

    def _values(self, response: list[int]) -> list[bool]:
        inside, marks = False, []
        for token in response:
            if token == self.quote:
                inside = not inside
                marks.append(False)
            else:
                marks.append(inside)
        return marks
