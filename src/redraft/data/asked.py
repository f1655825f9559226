"""Questions about a request whose answers its annotation knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from redraft.core.questions import Question, choice, predicate, score
from redraft.data.draws import Draws
from redraft.data.skills import CALLS, DOMAINS, EVERY_SKILL, SKILLS

# Arguments of SNIPS' calls that a text can be asked for, in words.
SLOTS = {
    "artist": "artist", "album": "album", "track": "song", "playlist": "playlist", "genre": "genre", "year": "year",
    "service": "music service", "city": "city", "state": "state", "country": "country", "timeRange": "time",
    "restaurant_name": "restaurant", "cuisine": "cuisine", "served_dish": "dish", "facility": "facility",
    "geographic_poi": "park", "condition_description": "kind of weather", "object_name": "title",
    "movie_name": "film", "location_name": "cinema",
}  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody has said to an assistant, and what is known about it.

    Attributes:
        skill, domain: what it is for, and what that is about; None where it is for nothing that anybody offers.
        call: of SNIPS' seven, where it is one.
        arguments: of the call, by name.
    """

    text: str
    skill: str | None = None
    domain: str | None = None
    call: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, and the number of the option that is right; None where none is."""

    question: Question
    answer: int | None


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Makes questions.

    Attributes:
        values: what other requests fill an argument with, by its name.
        missing: share of the choices that the right option is left out of.
        wide: share of the choices that have up to ten options, not up to six.
    """

    values: Mapping[str, Sequence[str]]
    missing: float
    wide: float = 1.0

    def ask(self, request: Request, draws: Draws) -> Asked | None:
        """A question about the request; None where the one that was drawn does not go with it."""
        return draws.one(_OF_CALLS if request.call else _OF_INTENTS)(self, request, draws)

    def choose(self, request: Request, draws: Draws) -> Asked | None:
        """The same, with options to choose between."""
        return draws.one(_CHOICES_OF_CALLS if request.call else _CHOICES_OF_INTENTS)(self, request, draws)

    def skill(self, request: Request, draws: Draws) -> Asked:
        """What is it for? Some of the wrong options are about the same."""
        asked = draws.one(("What does the user want?", "Which skill is this for?", "What is the request for?"))
        count = self._count(request, draws)
        near = [skill for skill in SKILLS.get(request.domain or "", ()) if skill != request.skill]
        nearby = draws.some(near, draws.below(min(len(near), count) + 1))
        far = [skill for skill in EVERY_SKILL if skill != request.skill and skill not in nearby]
        others = [*nearby, *draws.some(far, count - len(nearby))]
        return self._choice(asked, "skill", request.skill, others, draws)

    def domain(self, request: Request, draws: Draws) -> Asked:
        """What is that about?"""
        asked = draws.one(("What is the request about?", "Which subject is this?"))
        others = draws.shuffled([domain for domain in DOMAINS if domain != request.domain])
        return self._choice(asked, "subject", request.domain, others[: self._count(request, draws)], draws)

    def call(self, request: Request, draws: Draws) -> Asked:
        """Which function serves it?"""
        others = draws.shuffled([name for name in CALLS if name != request.call])
        return self._choice(
            "Which function is to be called?", "call", request.call, others[: self._count(request, draws)], draws
        )

    def value(self, request: Request, draws: Draws) -> Asked | None:
        """What is an argument's value?"""
        if (slot := self._slot(request, draws)) is None:
            return None
        value, others = request.arguments[slot], self._others(request, slot, draws, min(self._count(request, draws), 7))
        asked = draws.one((f"Which {SLOTS[slot]} is named?", f"What is the {SLOTS[slot]}?"))
        return self._choice(asked, SLOTS[slot], value, others, draws) if others else None

    def slot(self, request: Request, draws: Draws) -> Asked | None:
        """Which argument has a value?"""
        if (slot := self._slot(request, draws)) is None:
            return None
        value = request.arguments[slot]
        others = draws.shuffled([name for name in SLOTS if request.arguments.get(name, "").lower() != value.lower()])
        words = [SLOTS[name] for name in others[: min(self._count(request, draws), 7)]]
        return self._choice(f'What is "{value}"?', "part", SLOTS[slot], words, draws)

    def is_about(self, request: Request, draws: Draws) -> Asked | None:
        """Is it about that?"""
        if request.domain is None:
            return None
        right = draws.chance(0.5)
        about = request.domain if right else draws.one([domain for domain in DOMAINS if domain != request.domain])
        asked = draws.one(("Is the request about {}?", "Is this about {}?", "Does it have to do with {}?"))
        return _predicate(asked.format(about), f"about {about}", right)

    def is_for(self, request: Request, draws: Draws) -> Asked | None:
        """Is it for that?"""
        if request.domain is None or request.skill is None:
            return None
        right = draws.chance(0.5)
        skills = SKILLS[request.domain] if draws.chance(0.5) else EVERY_SKILL
        others = [skill for skill in skills if skill != request.skill] or EVERY_SKILL
        skill = request.skill if right else draws.one(others)
        asked = draws.one(("Does the user want this: {}?", "Is the request for this: {}?"))
        return _predicate(asked.format(skill), f"for {skill}", right and skill == request.skill)

    def names(self, request: Request, draws: Draws) -> Asked | None:
        """Does it name that?"""
        slot = self._slot(request, draws) if draws.chance(0.5) else draws.one(list(SLOTS))
        if slot is None:
            return None
        asked = draws.one(("Is the {} mentioned?", "Does the user say which {}?"))
        return _predicate(asked.format(SLOTS[slot]), f"names {SLOTS[slot]}", slot in request.arguments)

    def is_value(self, request: Request, draws: Draws) -> Asked | None:
        """Is that an argument's value?"""
        if (slot := self._slot(request, draws)) is None:
            return None
        right = draws.chance(0.5)
        values = [request.arguments[slot]] if right else self._others(request, slot, draws, 1)
        return _predicate(f"Is the {SLOTS[slot]} {values[0]}?", f"is {SLOTS[slot]}", right) if values else None

    def length(self, request: Request, draws: Draws) -> Asked:
        """How long is it?"""
        words, levels = len(request.text.split()), ("short", "medium", "long", "very long")
        return _score("How long is the request?", "length", levels, (words > 6) + (words > 9) + (words > 13))

    def rating(self, request: Request, draws: Draws) -> Asked | None:
        """How good is a book?"""
        stars = _number(request.arguments.get("rating_value", ""))
        if stars is None:
            return None
        asked, levels = "How good is the rating?", ("very bad", "bad", "good", "very good")
        return _score(asked, "rating", levels, (stars > 1) + (stars > 2) + (stars > 4))

    def party(self, request: Request, draws: Draws) -> Asked | None:
        """How many guests are there?"""
        guests = _number(request.arguments.get("party_size_number", ""))
        if guests is None:
            return None
        asked, levels = "How many people are coming?", ("one or two", "three or four", "five or six", "more than six")
        return _score(asked, "guests", levels, (guests > 2) + (guests > 4) + (guests > 6))

    def details(self, request: Request, draws: Draws) -> Asked | None:
        """How many of its arguments are given?"""
        given = sum(name in request.arguments for name in ("city", "state", "country", "timeRange"))
        if request.call not in ("BookRestaurant", "GetWeather"):
            return None
        asked = "How much is said of place and time?"
        return _score(asked, "details", ("nothing", "one thing", "two things or more"), min(given, 2))

    def _choice(self, asked: str, name: str, right: str | None, others: Sequence[str], draws: Draws) -> Asked:
        values = list(others)
        if right is not None and not (len(values) > 1 and draws.chance(self.missing)):
            values.append(right)
        values = draws.shuffled(list(dict.fromkeys(values)))
        found = values.index(right) if right in values else None
        return Asked(question=choice(asked, values, name=name), answer=found)

    def _count(self, request: Request, draws: Draws) -> int:
        """Of the wrong options; two at least where all are wrong, and up to 25 now and then."""
        most = 25 if draws.chance(0.02) else 9 if draws.chance(self.wide) else 5
        return max(1 + draws.below(most), 2 if request.skill is None else 1)

    def _slot(self, request: Request, draws: Draws) -> str | None:
        slots = [name for name in request.arguments if name in SLOTS]
        return draws.one(slots) if slots else None

    def _others(self, request: Request, slot: str, draws: Draws, count: int) -> list[str]:
        """Values of other requests that are not named in this one."""
        found: dict[str, str] = {}
        for value in draws.some(self.values.get(slot, ()), 3 * count):
            folded = value.lower()
            if folded not in request.text.lower() and request.arguments.get(slot, "").lower() not in folded:
                found.setdefault(folded, value)
        return list(found.values())[:count]


_Ask = Callable[[Asker, Request, Draws], Asked | None]
_CHOICES_OF_CALLS: tuple[_Ask, ...] = (Asker.skill, Asker.skill, Asker.domain, Asker.call, Asker.value, Asker.slot)
_CHOICES_OF_INTENTS: tuple[_Ask, ...] = (Asker.skill, Asker.skill, Asker.skill, Asker.domain)
_OF_CALLS: tuple[_Ask, ...] = (
    *(Asker.skill, Asker.skill, Asker.domain, Asker.call, Asker.value, Asker.value, Asker.slot),
    *(Asker.is_about, Asker.is_about, Asker.is_for, Asker.is_for, Asker.names, Asker.is_value),
    *(Asker.length, Asker.rating, Asker.party, Asker.details),
)
_OF_INTENTS: tuple[_Ask, ...] = (
    *(Asker.skill,) * 4, *(Asker.domain,) * 2, *(Asker.is_about,) * 3, *(Asker.is_for,) * 3, Asker.length
)  # fmt: skip


def _predicate(asked: str, name: str, right: bool) -> Asked:
    return Asked(question=predicate(asked, name=name), answer=0 if right else 1)


def _score(asked: str, name: str, levels: Sequence[str], level: int) -> Asked:
    return Asked(question=score(asked, tuple(levels), name=name), answer=int(level))


def _number(text: str) -> int | None:
    folded = text.lower()
    if folded in _NUMBERS:
        return _NUMBERS.index(folded)
    return int(folded) if folded.isascii() and folded.isdigit() else None
