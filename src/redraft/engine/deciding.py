"""Typed questions on a model that is here: what of it they must know, and who runs their reads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from redraft.core.decisions import Decisions
from redraft.core.errors import GenerationError, OptionError, PromptError, QuestionError
from redraft.core.options import GenerationOptions
from redraft.core.questions import DecideOptions
from redraft.core.reads import Read, Reading, Readings
from redraft.decide.given import questions_of
from redraft.decide.known import Known
from redraft.decide.rounds import decide
from redraft.engine.admission import Admission
from redraft.engine.read import ReadList, checked, peak_bytes
from redraft.engine.running import PreparedReads
from redraft.model.cache import SequenceCache
from redraft.text.markers import CHANNEL_CLOSE, CHANNEL_OPEN, TURN_CLOSE

Rounds = Generator[list[Read], list[Reading], Decisions]


def prepared_reads(admission: Admission, reads: Sequence[Read]) -> PreparedReads:
    """Reads, checked.

    Raises:
        InputError: one that cannot be done.
    """
    model = admission.model
    found = tuple(checked(read, model.config, admission.max_context) for read in reads)
    empty = SequenceCache(model.config, model.dtype, model.device)
    # Reads about one state hold the same pictures.
    pixels = {id(image.pixels): image.pixels.nbytes for read in found for image in read.images}
    under_way = ReadList(reads=found, variant=admission.variant)
    return PreparedReads(under_way, peak_bytes(found, empty) + sum(pixels.values()))


def readings_of(event: object) -> list[Reading]:
    """The answers that reads have ended with.

    Raises:
        GenerationError: they failed.
    """
    assert isinstance(event, Readings)
    if event.finish_reason != "stop":
        raise GenerationError(event.error or f"the reads were {event.finish_reason}")
    return list(event.readings)


def known_of(admission: Admission, identity: dict[str, Any], options: DecideOptions) -> Known:
    """A model as questions know it.

    Raises:
        PromptError: its directory has no tokenizer or no chat template.
    """
    tokenizer, model, ends = admission.tokenizer, admission.model, admission.defaults.end_ids
    if tokenizer is None or admission.template is None:
        missing = "tokenizer" if tokenizer is None else "chat template"
        raise PromptError(f"questions need words, and this model's directory has no {missing}")
    resolved = admission.resolved(GenerationOptions(enable_thinking=False), {})
    fill = admission.constraints.fill
    close = tokenizer.id_of(TURN_CLOSE)
    thinks = options.empty_thought
    if thinks is None:
        thinks = admission.template.knows_thoughts and tokenizer.id_of(CHANNEL_OPEN) is not None
    return Known(
        tokenize=lambda messages: admission.prompts.laid_out(messages, resolved).ids,
        look=lambda messages: admission.prompts.looked_at(messages, resolved),
        lay_out=lambda messages: admission.prompts.laid_out(messages, resolved),
        encode=admission.prompts.encoded,
        encode_text=admission.prompts.encoded_text,
        constraints=lambda: admission.constraints,
        end_id=fill if close is None else close,
        end_ids=tuple(sorted(ends)),
        pad_id=fill,
        canvas_length=model.config.canvas_length if model.config.has_canvas else 0,
        max_context=admission.max_context,
        vocab_size=model.config.vocab_size,
        thought=tuple(tokenizer.encode(f"{CHANNEL_OPEN}thought\n{CHANNEL_CLOSE}")) if thinks else (),
        identity=identity,
    )


def options_with(options: DecideOptions | None, changes: dict[str, Any]) -> DecideOptions:
    """The options with what was changed.

    Raises:
        OptionError: options that are none, or a value that cannot work.
    """
    if options is not None and not isinstance(options, DecideOptions):
        raise OptionError(f"options must be DecideOptions, got a {type(options).__name__}")
    return (options or DecideOptions()).with_changes(**changes)


def rounds_of(known: Known, state: Any, questions: Any, options: DecideOptions) -> Rounds:
    """The rounds of reads that these questions take.

    Raises:
        QuestionError: a state or a list of questions that is none; before the first round.
    """
    return decide(known, state, questions_of(questions), options)


def driven(rounds: Rounds, read: Callable[[Sequence[Read]], list[Reading]]) -> Decisions:
    """Runs the reads of each round, to the end."""
    try:
        wanted = next(rounds)
        while True:
            wanted = rounds.send(read(wanted))
    except StopIteration as end:
        return end.value


def each_state(states: Iterable[Any], one: Callable[[Any], Decisions]) -> Iterator[Decisions]:
    """What is decided of each state, one by one, as it is asked for.

    Raises:
        QuestionError: no list of states.
    """
    if isinstance(states, str | bytes) or not isinstance(states, Iterable):
        raise QuestionError("states", "must be a list of states: put the one into a list")
    return map(one, states)
