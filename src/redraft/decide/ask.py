"""From questions to looks at them: one by itself, or several on a canvas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from redraft.core.errors import ContextLengthError, OptionError, QuestionError
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
            prompt = self._fitting(lambda: self._prompt(put), len(canvas.ids))
            texts = self.spellings.texts(question) if by_text else None
            return Look(read=self._read(prompt, canvas, draws, texts), asked=(number,))
        continuations = self.spellings.continuations(question) if by_text else ()
        prompt = self._fitting(lambda: self._prompt(put), max(map(len, continuations), default=1))
        tokens = tuple(sorted({each[0] for each in continuations})) if by_text else self.labels.tokens(put)
        endings = None
        if (open_ended := self.spellings.endings(question)) is not None:
            tokens, endings = open_ended
        read = CausalRead(
            prompt=prompt.ids, kept=prompt.kept, token_ids=tokens, continuations=continuations, endings=endings
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
        most = canvases.widest(self.known, self.options.width)
        for parts in range(1, len(puts)):
            made: list[Look] = []
            runs = canvases.evenly(len(puts), parts)
            for run in (run for run in runs if len(run) > 1):
                look = self._joint([puts[i] for i in run], draws, most)
                if look is None:
                    break
                made.append(look)
            else:
                return made, [puts[run[0]][0] for run in runs if len(run) == 1]
        return [], [number for number, _ in puts]

    def _joint(self, puts: Sequence[tuple[int, Put]], draws: Sequence[int], most: int) -> Look | None:
        """A canvas of these, None where there is no room for them."""
        asked = [put for _, put in puts]
        lines = canvases.lines_of(self.labels, asked, most)
        if lines is None:
            return None
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
        return canvases.of_text(self.known, longest, self.options.width or whole)

    def _read(self, prompt: Prompt, canvas: Canvas, draws: Sequence[int], texts: Texts | None = None) -> CanvasRead:
        seed = prompt.seed if self.options.seed is None else self.options.seed
        return CanvasRead(
            prompt=prompt.ids, kept=prompt.kept, canvas=canvas.ids, slots=canvas.slots, seed=seed, draws=tuple(draws),
            texts=texts, steps=self.options.steps,
        )  # fmt: skip

    def _fitting(self, make: Callable[[], Prompt], behind: int) -> Prompt:
        """A prompt that leaves so many positions of the context behind it.

        Raises:
            QuestionError: it does not.
        """
        most = self.known.max_context
        try:
            prompt = make()
            length, more = len(prompt.ids), ""
        except ContextLengthError as error:
            prompt, length, more = None, error.prompt_tokens, "at least "
        if prompt is None or length + behind > most:
            reason = f"are too long: prompt and answer have {more}{length + behind} tokens, the context holds {most}"
            raise QuestionError("instructions", reason)
        return prompt
