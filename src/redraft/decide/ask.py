"""From questions to looks at them: one by itself, or several on a canvas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from redraft.core.errors import ContextLengthError, OptionError, PromptError, QuestionError
from redraft.core.questions import DecideOptions, Question
from redraft.core.reads import CanvasRead, CausalRead, Texts
from redraft.decide import canvases
from redraft.decide.canvases import Canvas
from redraft.decide.cost import cheaper
from redraft.decide.known import Known
from redraft.decide.labels import Labels, listed
from redraft.decide.looks import Look, ReaderName
from redraft.decide.prefixes import Prompt, Prompts
from redraft.decide.prompts import Put
from redraft.decide.spellings import Spellings
from redraft.decide.state import State


class Ask:
    """Makes the looks at questions about one state."""

    def __init__(self, known: Known, state: State, options: DecideOptions) -> None:
        """Checks what all questions have in common.

        Raises:
            OptionError: an option that this model has no use for.
        """
        if not known.canvas_length and (options.joint or options.reader == "canvas"):
            wrong = "joint must be False" if options.joint else "reader must be 'causal'"
            raise OptionError(f"{wrong}: this model has no canvas")
        if options.joint and options.reader == "causal":
            raise OptionError("joint needs a canvas: leave reader at 'auto', or ask each question by itself")
        if known.canvas_length:
            canvases.widest(known, options.width)
        self.known, self.options = known, options
        self.labels, self.spellings = Labels(known), Spellings(known)
        self.prompts = Prompts(known, state, behind=options.state == "behind")

    def check(self, questions: Iterable[Question]) -> None:
        """Makes sure that the state leaves room for questions.

        Raises:
            ContextLengthError: it does not.
        """
        if any(question.form != "reply" for question in questions):
            self.prompts.check(1)

    def reader_of(self, question: Question) -> ReaderName:
        """Who looks at it first, where it is by itself.

        Raises:
            QuestionError: it cannot be asked.
            OptionError: a width that has no room for it.
        """
        options = self.options
        if options.reader != "auto":
            return options.reader
        if not self.known.canvas_length:
            return "causal"
        passes = options.draws * options.steps
        if self.labels.alone(question) != "text":
            return cheaper(options.width or canvases.SIXTEEN, passes, ())
        continuations = self.spellings.continuations(question)
        if max(map(len, continuations)) > self.known.canvas_length:
            return "causal"
        return cheaper(len(self._worded(question).ids), passes, continuations)

    def alone(
        self,
        number: int,
        question: Question,
        reader: ReaderName,
        draws: Sequence[int],
        order: Sequence[int] | None = None,
    ) -> Look:
        """A look at one question.

        Args:
            number: of the question.
            question: what is asked.
            reader: who looks.
            draws: numbers of the canvases.
            order: in which the options are listed; None: their own.

        Raises:
            QuestionError: it cannot be asked.
            OptionError: a width that has no room for it.
        """
        put = listed(question, self.labels.alone(question), order)
        by_text = put.labels == "text"
        if reader == "canvas":
            canvas = self._worded(question) if by_text else self._labelled(put)
            prompt = self._fitting(lambda: self._prompt(put), len(canvas.ids), _longest(question))
            texts = self.spellings.texts(question) if by_text else None
            return Look(read=self._read(prompt, canvas, draws, texts), asked=(number,))
        continuations = self.spellings.continuations(question) if by_text else ()
        behind = max(map(len, continuations), default=1)
        prompt = self._fitting(lambda: self._prompt(put), behind, _longest(question))
        tokens = tuple(sorted({each[0] for each in continuations})) if by_text else self.labels.tokens(put)
        endings = None
        if (open_ended := self.spellings.endings(question)) is not None:
            tokens, endings = open_ended
        read = CausalRead(
            prompt=prompt.ids,
            kept=prompt.kept,
            token_ids=tokens,
            continuations=continuations,
            endings=endings,
            images=prompt.images,
        )
        return Look(read=read, asked=(number,))

    def jointly(self, puts: Sequence[tuple[int, Put]], draws: Sequence[int]) -> tuple[list[Look], list[int]]:
        """Looks at questions on as few canvases as hold them, each of as many questions as the others.

        Args:
            puts: (number, question as it is put) of each.
            draws: numbers of the canvases.

        Returns:
            The looks; the numbers of questions that must go by themselves.
        """
        room = self.known.max_context - self.prompts.shared - canvases.SIXTEEN
        least = {number: self.prompts.least(put) for number, put in puts}
        # Whatever has no room beside the shortest would part all the others.
        alone = [number for number, tokens in least.items() if tokens + min(least.values()) > room]
        left = [(number, put) for number, put in puts if number not in alone]
        while len(left) > 1:
            looks, others, is_done = self._evenly(left, least, draws)
            alone += others
            if is_done:
                return looks, sorted(alone)
            left = [(number, put) for number, put in left if number not in others]
        return [], sorted([*alone, *(number for number, _ in left)])

    def _evenly(
        self, puts: Sequence[tuple[int, Put]], least: Mapping[int, int], draws: Sequence[int]
    ) -> tuple[list[Look], list[int], bool]:
        """The looks of a division into as few even runs as there is room for; the numbers of questions that go by
        themselves; and whether the division stands, or must be made anew without those, since no prompt holds them."""
        for parts in range(1, len(puts)):
            runs = canvases.evenly(len(puts), parts)
            several = [run for run in runs if len(run) > 1]
            if not all(
                self._may_fit([puts[i][1] for i in run], sum(least[puts[i][0]] for i in run)) for run in several
            ):
                continue
            looks: list[Look] = []
            for run in several:
                look = self._joint([puts[i] for i in run], draws)
                if look is None:
                    unfit = [puts[i][0] for i in run if not self._fits(puts[i][1])]
                    if unfit:
                        return [], unfit, False
                    break
                looks.append(look)
            else:
                return looks, [puts[run[0]][0] for run in runs if len(run) == 1], True
        return [], [number for number, _ in puts], True

    def _may_fit(self, puts: Sequence[Put], least: int) -> bool:
        """Whether a canvas has room for the lines of these, and the context for so many tokens before it."""
        lines = canvases.lines_of(self.labels, puts, canvases.widest(self.known, self.options.width))
        if lines is None:
            return False
        width = len(canvases.of_lines(self.known, lines, self.options.width).ids)
        return self.prompts.shared + least + width <= self.known.max_context

    def _fits(self, put: Put) -> bool:
        try:
            self._fitting(lambda: self.prompts.of([put], joint=True), canvases.SIXTEEN)
        except QuestionError:
            return False
        return True

    def _joint(self, puts: Sequence[tuple[int, Put]], draws: Sequence[int]) -> Look | None:
        """A canvas of these, None where there is no room for them in a prompt."""
        asked = [put for _, put in puts]
        lines = canvases.lines_of(self.labels, asked, canvases.widest(self.known, self.options.width))
        assert lines is not None
        canvas = canvases.of_lines(self.known, lines, self.options.width)
        try:
            prompt = self._fitting(lambda: self.prompts.of(asked, joint=True), len(canvas.ids))
        except QuestionError:
            return None
        return Look(read=self._read(prompt, canvas, draws), asked=tuple(number for number, _ in puts))

    def _prompt(self, put: Put) -> Prompt:
        return self.prompts.reply if put.question.form == "reply" else self.prompts.of([put], joint=False)

    def _labelled(self, put: Put) -> Canvas:
        return canvases.of_label(self.known, self.labels.tokens(put), self.options.width)

    def _worded(self, question: Question) -> Canvas:
        longest = max(map(len, self.spellings.continuations(question)))
        whole = self.known.canvas_length if question.form == "reply" else None
        return canvases.of_text(self.known, longest, self.options.width or whole, part=question.part)

    def _read(self, prompt: Prompt, canvas: Canvas, draws: Sequence[int], texts: Texts | None = None) -> CanvasRead:
        seed = prompt.seed if self.options.seed is None else self.options.seed
        return CanvasRead(
            prompt=prompt.ids, kept=prompt.kept, canvas=canvas.ids, slots=canvas.slots, seed=seed, draws=tuple(draws),
            texts=texts, steps=self.options.steps, images=prompt.images,
        )  # fmt: skip

    def _fitting(self, make: Callable[[], Prompt], behind: int, part: str = "instructions") -> Prompt:
        """A prompt that leaves so many positions of the context behind it; `part`: what is too long where it does not.

        Raises:
            QuestionError: it does not, or cannot be made.
        """
        most = self.known.max_context
        try:
            prompt = make()
            length, more = len(prompt.ids), ""
        except ContextLengthError as error:
            prompt, length, more = None, error.prompt_tokens, "at least "
        except PromptError as error:
            raise QuestionError(part, f"cannot be put to this model: {error}") from None
        if prompt is None or length + behind > most:
            verb = "is" if part == "state" else "are"
            reason = f"{verb} too long: prompt and answer have {more}{length + behind} tokens, the context holds {most}"
            raise QuestionError(part, reason)
        return prompt


def _longest(question: Question) -> str:
    """What is too long where a question is: its instructions or its options; where nothing is asked, the state."""
    if question.form == "reply":
        return "state"
    options = sum(len(option.text) + len(option.description or "") for option in question.options)
    return question.part if options > len(question.instructions) else "instructions"
