"""What a reply must match, as an automaton over the model's tokens: response formats and tool calls."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from redraft.core.automaton import TokenAutomaton
from redraft.core.errors import OptionError
from redraft.core.options import GenerationOptions
from redraft.text.bytes_of_tokens import marks_of
from redraft.text.call_pattern import calls_node
from redraft.text.grammar import nodes
from redraft.text.grammar.build import ANY
from redraft.text.grammar.expansion import expanded
from redraft.text.grammar.language import Language
from redraft.text.grammar.nodes import Choice, Node, Repeat, Text
from redraft.text.grammar.reference import counted_out
from redraft.text.grammar.spelling import spelled
from redraft.text.markers import CALL_CLOSE, CALL_OPEN, CHANNEL_CLOSE, CHANNEL_OPEN, QUOTE
from redraft.text.native import library
from redraft.text.response_format import response_node
from redraft.text.token_automaton import token_automaton
from redraft.text.tokenizer import Tokenizer
from redraft.text.vocabulary import Vocabulary, vocabulary_of

MARKED = (CALL_OPEN, CALL_CLOSE, QUOTE, CHANNEL_OPEN, CHANNEL_CLOSE)
FREE_TEXT = Repeat(ANY)
# Automata that are kept: at a vocabulary of 262,144 tokens, one takes some 4 MB.
CACHED = 32
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Constraint:
    """A language of replies.

    Attributes:
        automaton: over tokens.
        language: what it is made of.
        held: rules of the language that `automaton` keeps.
        factory: where narrower constraints come from.
    """

    automaton: TokenAutomaton
    language: Language
    held: frozenset[int]
    factory: ConstraintFactory

    def narrowed(self, token_ids: Sequence[int]) -> Constraint | None:
        """The constraint with the rules that this text breaks added; None if it breaks none.

        Which arguments a call has had so far, or how long a string is, would take an automaton with a state for each
        case. Rules are added only when a canvas breaks one, and then hold for the rest of the request.
        """
        return self.factory.narrowed(self, token_ids)


class ConstraintFactory:
    """Makes the constraints of one model, and keeps those that were asked for lately."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_ids: Iterable[int],
        pad_id: int | None,
        fill: int,
        vocab_size: int,
    ) -> None:
        """`fill` stands behind the end of a reply, as in training; `vocab_size` is the model's, padding included."""
        self.vocab_size = vocab_size
        self.tokenizer = tokenizer
        self.end_ids = sorted(token for token in end_ids if token < vocab_size)
        self.pad_id, self.fill = pad_id if pad_id is not None and pad_id < vocab_size else None, fill
        self.marks = marks_of(tokenizer, MARKED)
        # Requests are prepared by any thread.
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, Any] = OrderedDict()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens, read once."""
        return vocabulary_of(self.tokenizer, self.marks, self.vocab_size)

    def of(
        self, options: GenerationOptions, *, thinking: bool = False, spells_calls: bool = False
    ) -> Constraint | None:
        """What these options ask for; None when a reply may be anything.

        Args:
            options: of the request.
            thinking: whether the prompt ends inside a thought, which the reply has to close first.
            spells_calls: whether the model would spell calls in text that it cannot make, which is barred then: that
                takes a tenth more edges.

        Raises:
            OptionError: a schema, pattern or tool that cannot be used, or marks that this tokenizer does not have.
        """
        tools = options.tools if options.tools and options.tool_choice != "none" else None
        if options.response_format is None and tools is None and options.tool_choice != "none":
            return None
        try:
            asked = json.dumps((options.response_format, tools, options.tool_choice, options.parallel_tool_calls))
        except (TypeError, ValueError, RecursionError):
            # No JSON, or too deep: whoever makes the tree says what is wrong with it.
            return self._of(options, thinking, spells_calls)
        key = (asked, options.enable_thinking, thinking, spells_calls)
        return self._cached(key, lambda: self._of(options, thinking, spells_calls))

    def _of(self, options: GenerationOptions, thinking: bool, spells_calls: bool) -> Constraint | None:
        wanted = response_node(options.response_format) if options.response_format else None
        calls = None
        if options.tools and options.tool_choice != "none":
            calls = calls_node(options.tools, options.tool_choice, self.marks, options.parallel_tool_calls)
        if calls is None and wanted is None and options.tool_choice != "none":
            return None
        bars_calls = False
        if calls is None:
            node, bars_calls = (FREE_TEXT, True) if wanted is None else (wanted, False)
        elif options.tool_choice != "auto":
            node = calls
        elif wanted is not None:
            node = Choice((wanted, calls))
        else:
            node, bars_calls = nodes.Sequence((FREE_TEXT, Repeat(calls, 0, 1))), spells_calls
        read = wanted is None or calls is not None
        return self._with_thoughts(node, options, thinking, bars_calls=bars_calls, read=read)

    def held_to(self, node: Node, options: GenerationOptions, *, thinking: bool = False) -> Constraint:
        """A constraint to a tree, whatever format or tools the options ask for."""
        key = (node, options.enable_thinking, thinking)
        return self._cached(key, lambda: self._with_thoughts(node, options, thinking, bars_calls=False, read=False))

    def _with_thoughts(
        self, node: Node, options: GenerationOptions, thinking: bool, *, bars_calls: bool, read: bool
    ) -> Constraint:
        """`read`: whether a reader looks for calls and thoughts in the reply."""
        if thinking:
            node = nodes.Sequence((FREE_TEXT, Text(self._mark(CHANNEL_CLOSE)), node))
        elif options.enable_thinking:
            thought = (Text(f"{self._mark(CHANNEL_OPEN)}thought\n"), FREE_TEXT, Text(self._mark(CHANNEL_CLOSE)))
            node = Choice((node, nodes.Sequence((*thought, node))))
        # Ordinary tokens can spell a marker, which whoever reads the reply would take for one.
        read = read or options.enable_thinking or thinking
        return self._made_of(self._language(node, bars_calls, MARKED if read else ()), frozenset())

    def _language(
        self,
        node: Node,
        bars_calls: bool,
        words: tuple[str, ...],
        barred: frozenset[str] = frozenset(),
        once: tuple[tuple[int, str], ...] = (),
    ) -> Language:
        core = Language.core_of(node, bars_calls, barred, once)
        spelling = spelled(core, self.vocabulary) if self._natively else None
        return Language(node, bars_calls, words, barred, once, core, spelling)

    def narrowed(self, constraint: Constraint, token_ids: Sequence[int]) -> Constraint | None:
        """See `Constraint.narrowed`."""
        language = constraint.language
        found = language.breaches(self.vocabulary, tuple(self.end_ids)).of(token_ids)
        held = constraint.held | language.places(found.rules)
        barred = language.barred | self._spelled_words(language.words, token_ids)
        once = (*language.once, *sorted(found.repeated - set(language.once)))
        if (held, barred, once) == (constraint.held, language.barred, language.once):
            return None
        if (barred, once) != (language.barred, language.once):
            key = (id(language.node), language.bars_calls, language.words, barred, once)
            asked = (language.node, language.bars_calls, language.words)
            language = self._cached(key, lambda: self._language(*asked, barred, once))
        # What is kept keeps what its key names by number.
        return self._cached((id(language), held), lambda: self._made_of(language, held))

    def marked(self, text: str) -> str:
        """The text with its special tokens as marks."""
        return _SPECIALS.sub(lambda found: self.marks.get(found[0], found[0]), text)

    def _spelled_words(self, words: tuple[str, ...], token_ids: Sequence[int]) -> frozenset[str]:
        """Which of these words ordinary tokens spell."""
        if not words:
            return frozenset()
        text = self.vocabulary.text_of(token_ids, self.end_ids)
        return frozenset(word for word in words if word.encode() in text)

    def _made_of(self, language: Language, held: frozenset[int]) -> Constraint:
        enabled = language.enabled(held)
        ends = (self.end_ids, self.pad_id, self.fill)
        if language.spelling is None:
            automaton = token_automaton(counted_out(language.core, enabled), self.vocabulary.readings, *ends)
        else:
            automaton = expanded(language.spelling, language.core, self.vocabulary, enabled, *ends)
        return Constraint(automaton, language, held, self)

    @property
    def _natively(self) -> bool:
        return all(library(name) is not None for name in ("tree", "spell", "expand"))

    def _cached(self, key: Hashable, make: Callable[[], _T]) -> _T:
        with self._lock:
            found = self._made.get(key)
        # Two threads may make the same one at once, and no thread waits for another's.
        found = found or make()
        with self._lock:
            self._made[key] = found
            self._made.move_to_end(key)
            if len(self._made) > CACHED:
                self._made.popitem(last=False)
        return found

    def _mark(self, token: str) -> str:
        if token not in self.marks:
            raise OptionError(f"this model's tokenizer has no {token}, so a reply with it cannot be constrained")
        return self.marks[token]


_SPECIALS = re.compile("|".join(re.escape(token) for token in MARKED))
