"""What a reply must match, as an automaton over the model's tokens: response formats and tool calls."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redraft.core.automaton import TokenAutomaton
from redraft.core.errors import OptionError
from redraft.core.options import GenerationOptions
from redraft.text.bare_calls import without_bare_calls
from redraft.text.byte_automaton import ByteAutomaton, behind, either, without
from redraft.text.bytes_of_tokens import TokenBytes, marks_of, token_bytes
from redraft.text.call_pattern import argument_names, calls_pattern
from redraft.text.guarded import compile_guarded
from redraft.text.markers import CALL_CLOSE, CALL_OPEN, CHANNEL_CLOSE, CHANNEL_OPEN, NAME, QUOTE
from redraft.text.once import Once, parts, restricted
from redraft.text.pattern import compile_pattern
from redraft.text.response_format import has_patterns, response_pattern
from redraft.text.token_automaton import token_automaton
from redraft.text.tokenizer import Tokenizer

MARKED = (CALL_OPEN, CALL_CLOSE, QUOTE, CHANNEL_OPEN, CHANNEL_CLOSE)
FREE_TEXT = "[^\ue000-\ue0ff]*"
CACHED = 32


@dataclass(frozen=True, eq=False)
class Constraint:
    """A language of replies.

    Attributes:
        automaton: over tokens.
        language: over bytes, without the rules.
        rules: arguments that a call may have once, required ones among them.
        duties: rules that `automaton` keeps already.
        factory: where narrower constraints come from.
    """

    automaton: TokenAutomaton
    language: ByteAutomaton
    rules: tuple[Once, ...]
    duties: frozenset[Once]
    factory: ConstraintFactory

    def narrowed(self, token_ids: Sequence[int]) -> Constraint | None:
        """The constraint with the rules that this text breaks added; None if it breaks none.

        Which arguments a call has had so far would take an automaton with a state for every subset of them. Rules are
        added only when a canvas breaks one, and then hold for the rest of the request.
        """
        text = self.factory.spelled(token_ids)
        broken = frozenset(
            rule
            for opening in {rule.opening for rule in self.rules}
            for call in text.split(opening)[1:]
            for rule in self._broken(opening, opening[-1] + call)
            if rule not in self.duties
        )
        return self.factory.narrowed(self, broken) if broken else None

    def _broken(self, opening: str, call: str) -> list[Once]:
        """Rules about the arguments of one call, from its bracket on, that it breaks or can only break."""
        rules = [rule for rule in self.rules if rule.opening == opening]
        written, closed, _ = call.partition(rules[0].closing)
        written = parts(written, rules[0].quote)
        counts = {rule: sum(written.count(item) for item in rule.items) for rule in rules}
        broken = [rule for rule, count in counts.items() if count > 1]
        # A text that stops within an argument's name must be able to become one that is not there yet.
        begun = re.search(r"[{,][^{},:]*\Z", written)
        if closed or begun is None or written.count(rules[0].quote) % 2:
            return broken
        fitting = [rule for rule in rules if any(item.startswith(begun[0]) for item in rule.items)]
        return broken if any(not counts[rule] for rule in fitting) else broken + fitting


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
        self.end_ids, self.pad_id, self.fill = sorted(end_ids), pad_id, fill
        self.marks = marks_of(tokenizer, MARKED)
        # Requests are prepared by any thread.
        self._lock = threading.Lock()
        self._made: OrderedDict[Any, Constraint] = OrderedDict()

    @cached_property
    def tokens(self) -> TokenBytes:
        """The vocabulary's bytes, read once."""
        return token_bytes(self.tokenizer, self.marks, self.vocab_size)

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
        wanted = response_pattern(options.response_format) if options.response_format else None
        calls = None
        if options.tools and options.tool_choice != "none":
            calls = calls_pattern(options.tools, options.tool_choice, self.marks, options.parallel_tool_calls)
        if wanted is None and calls is None and options.tool_choice != "none":
            return None
        key = (
            wanted,
            calls,
            options.tool_choice,
            options.enable_thinking,
            thinking,
            spells_calls,
            self._rules(options),
        )
        return self._cached(key, lambda: self._of(wanted, calls, options, thinking, spells_calls))

    def _of(
        self, wanted: str | None, calls: str | None, options: GenerationOptions, thinking: bool, spells_calls: bool
    ) -> Constraint:
        strange = has_patterns(options.response_format) or has_patterns(options.tools)
        compiled = compile_guarded if strange else compile_pattern
        if calls is None and wanted is None:
            language = without_bare_calls(compile_pattern(FREE_TEXT))
        elif calls is None:
            language = compiled(wanted or "")
        elif options.tool_choice != "auto":
            language = compiled(calls)
        elif wanted is not None:
            language = either(compiled(wanted), compiled(calls))
        else:
            language = compiled(f"{FREE_TEXT}(?:{calls})?")
            if spells_calls:
                language = without_bare_calls(language)
        if thinking:
            language = behind(compile_pattern(FREE_TEXT + self._mark(CHANNEL_CLOSE)), language)
        elif options.enable_thinking:
            thought = f"{self._mark(CHANNEL_OPEN)}thought\n{FREE_TEXT}{self._mark(CHANNEL_CLOSE)}"
            language = either(language, behind(compile_pattern(thought), language))
        if wanted is None or calls is not None or options.enable_thinking or thinking:
            # Ordinary tokens can spell a marker, which whoever reads the reply would take for one.
            language = without(language, MARKED)
        rules = self._rules(options)
        return self._made_of(language, rules, frozenset(rule for rule in rules if rule.required))

    def narrowed(self, constraint: Constraint, rules: frozenset[Once]) -> Constraint:
        """A constraint with more of its rules kept."""
        duties = constraint.duties | rules
        key = (constraint.language, constraint.rules, duties)
        return self._cached(key, lambda: self._made_of(constraint.language, constraint.rules, duties))

    def marked(self, text: str) -> str:
        """The text with its special tokens as marks."""
        return _SPECIALS.sub(lambda found: self.marks.get(found[0], found[0]), text)

    def spelled(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, special tokens as marks."""
        return self.marked(self.tokenizer.decode(token_ids))

    def _made_of(self, language: ByteAutomaton, rules: tuple[Once, ...], duties: frozenset[Once]) -> Constraint:
        kept = language
        for rule in sorted(duties, key=lambda rule: (rule.opening, rule.items)):
            kept = restricted(kept, rule)
        automaton = token_automaton(kept, self.tokens, self.end_ids, self.pad_id, self.fill)
        return Constraint(automaton, language, rules, duties, self)

    def _cached(self, key: Any, make: Callable[[], Constraint]) -> Constraint:
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

    def _rules(self, options: GenerationOptions) -> tuple[Once, ...]:
        rules = []
        named = argument_names(options.tools) if options.tools and options.tool_choice != "none" else {}
        for name, (keys, required) in named.items():
            opening = f"{self._mark(CALL_OPEN)}call:{name}{{"
            for key in keys:
                spelled = key if NAME.fullmatch(key) else self._mark(QUOTE) + key + self._mark(QUOTE)
                items = (f"{{{spelled}:", f",{spelled}:")
                rules.append(Once(opening, items, self._mark(CALL_CLOSE), self._mark(QUOTE), key in required))
        return tuple(rules)


_SPECIALS = re.compile("|".join(re.escape(token) for token in MARKED))
