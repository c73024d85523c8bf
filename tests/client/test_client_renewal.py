"""When a token is renewed: once per expiry, in time, never in a storm; and what is said when there is none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcapfs.client.auth import GivenToken
from ivcapfs.client.renewal import RenewedToken, Supply, Token
from ivcapfs.config import Secret
from ivcapfs.errors import Closing, CredentialError

PATIENCE = 20.0


class FakeSupply(Supply):
    """Gives t1, t2, … or what it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.given = 0
        self.expires: float | None = None
        self.problem: CredentialError | None = None
        self.changed = False
        self.same = False
        self.gate = threading.Event()
        self.gate.set()
        self.closed = threading.Event()

    def first(self) -> Token:
        return self.next()

    def next(self) -> Token:
        self.given += 1
        return Token(Secret(f"t{self.given}"), self.expires)

    def has_changed(self) -> bool:
        return self.changed

    def look(self, current: Token) -> Token:
        self.asked.append("look")
        return self.answer(current)

    def renew(self, current: Token, *, is_refused: bool) -> Token:
        self.asked.append("refused" if is_refused else "due")
        return self.answer(current)

    def answer(self, current: Token) -> Token:
        assert self.gate.wait(PATIENCE)
        if self.closed.is_set():
            raise Closing("closed")
        if self.problem:
            raise self.problem
        self.changed = False
        return current if self.same else self.next()

    def close(self) -> None:
        self.closed.set()
        self.gate.set()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def supply() -> FakeSupply:
    return FakeSupply()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(supply: FakeSupply, clock: Clock) -> Iterator[RenewedToken]:
    source = RenewedToken(supply, supply.first(), pause=0.0, clock=clock)
    source.accepted(source.token())
    yield source
    source.close()


def lost(*, needs_login: bool = True) -> CredentialError:
    exc = CredentialError("the login has expired: ivcap context login")
    exc.needs_login = needs_login
    return exc


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_refused_token_is_renewed_once_however_many_were_refused(tokens: RenewedToken, supply: FakeSupply) -> None:
    old = tokens.token()
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: tokens.rejected(old), range(16)))
    assert (supply.asked, tokens.token().reveal()) == (["refused"], "t2")


def test_who_was_refused_with_an_older_one_gets_the_newer_without_asking(
    tokens: RenewedToken, supply: FakeSupply
) -> None:
    old = tokens.token()
    assert tokens.rejected(old) and tokens.rejected(old)
    assert supply.asked == ["refused"]


def test_a_token_is_renewed_before_it_expires(supply: FakeSupply, clock: Clock) -> None:
    supply.expires = time.time() + 3600
    token = supply.first()
    fresh = RenewedToken(supply, token, clock=clock, pause=0)
    assert fresh.token().reveal() == "t1" and supply.asked == []
    soon = RenewedToken(supply, Token(Secret("t0"), time.time() + 3600), clock=clock, pause=0)
    soon._due = time.time() - 1  # 59 minutes later
    assert soon.token().reveal() == "t2" and supply.asked == ["due"]
    assert soon.token().reveal() == "t2" and supply.asked == ["due"]


def test_while_one_renews_others_go_on_with_a_token_that_is_still_good(supply: FakeSupply, clock: Clock) -> None:
    tokens = RenewedToken(supply, Token(Secret("t0"), time.time() + 3600), clock=clock, pause=0)
    tokens._due = 0.0
    supply.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(tokens.token)
        while not supply.asked:
            time.sleep(0.001)
        assert tokens.token().reveal() == "t0"
        supply.gate.set()
        assert renewing.result(PATIENCE).reveal() == "t1"


def test_a_source_that_still_has_the_same_token_is_not_asked_all_the_time(
    supply: FakeSupply, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = RenewedToken(supply, Token(Secret("t0"), time.time() + 3600), clock=clock, pause=0)
    tokens._due, supply.same = 0.0, True
    for _ in range(3):
        assert tokens.token().reveal() == "t0"
    assert supply.asked == ["due"] and not told(caplog)
    clock.now += 6
    assert tokens.token().reveal() == "t0" and supply.asked == ["due", "due"]


def test_by_a_wrong_clock_tokens_are_not_renewed_all_the_time(supply: FakeSupply, clock: Clock) -> None:
    supply.expires = time.time() - 3600
    tokens = RenewedToken(supply, supply.first(), clock=clock, pause=0)
    for _ in range(5):
        tokens.token()
        clock.now += 6
    assert supply.asked == ["due"]


def test_when_nothing_helps_it_is_said_once_and_tried_every_few_seconds(
    tokens: RenewedToken, supply: FakeSupply, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    supply.problem = lost()
    old = tokens.token()
    for _ in range(20):
        assert not tokens.rejected(old)
        assert tokens.token() == old, "the server says what it thinks of it"
        clock.now += 1
    assert 3 <= len(supply.asked) <= 5
    assert len(told(caplog)) == 1 and "ivcap context login" in told(caplog)[0]


def test_it_recovers_at_once_when_the_place_has_changed(
    tokens: RenewedToken, supply: FakeSupply, caplog: pytest.LogCaptureFixture
) -> None:
    supply.problem = lost()
    old = tokens.token()
    assert not tokens.rejected(old)
    supply.problem, supply.changed = None, True
    assert tokens.rejected(old)
    tokens.accepted(tokens.token())
    supply.problem = lost()
    assert not tokens.rejected(tokens.token())
    assert len(told(caplog)) == 2, "a new trouble is told anew"


def test_a_place_that_changes_is_looked_at_without_a_refusal(
    tokens: RenewedToken, supply: FakeSupply, clock: Clock
) -> None:
    supply.changed = True
    assert tokens.token().reveal() == "t1", "not more often than every second"
    clock.now += 1.1
    assert tokens.token().reveal() == "t2" and supply.asked == ["look"]


def test_two_kinds_of_trouble_are_told_apart(
    tokens: RenewedToken, supply: FakeSupply, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for needs_login in (False, True, False):
        supply.problem = lost(needs_login=needs_login)
        assert not tokens.rejected(tokens.token())
        clock.now += 6
    assert len(told(caplog)) == 2


def test_tokens_that_nobody_takes_are_not_got_in_a_storm(
    tokens: RenewedToken, supply: FakeSupply, clock: Clock
) -> None:
    for _ in range(50):
        tokens.rejected(tokens.token())
    assert len(supply.asked) == 3
    clock.now += 6
    assert tokens.rejected(tokens.token())
    tokens.accepted(tokens.token())
    assert tokens.rejected(tokens.token())
    assert len(supply.asked) == 5


def test_renewals_have_a_distance_which_is_waited_for(supply: FakeSupply) -> None:
    tokens = RenewedToken(supply, supply.first(), pause=0.1)
    began = time.monotonic()
    for _ in range(3):
        assert tokens.rejected(tokens.token())
        tokens.accepted(tokens.token())
    assert time.monotonic() - began >= 0.2


def test_closing_ends_all_waits(tokens: RenewedToken, supply: FakeSupply) -> None:
    supply.gate.clear()
    old = tokens.token()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(tokens.rejected, old) for _ in range(4)]
        while not supply.asked:
            time.sleep(0.001)
        tokens.close()
        for each in waiting:
            with pytest.raises(Closing):
                each.result(PATIENCE)


def test_who_begins_without_a_good_token_is_told_by_an_exception_alone(
    supply: FakeSupply, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = RenewedToken(supply, supply.first(), pause=0.0, clock=clock)
    supply.problem = lost()
    assert not tokens.rejected(tokens.token()) and not told(caplog)


def test_a_given_token_says_once_that_it_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    tokens = GivenToken(Secret("t"))
    assert not tokens.rejected(Secret("t")) and not told(caplog), "who begins with it is told by an exception"
    tokens.accepted(Secret("t"))
    assert not any(tokens.rejected(Secret("t")) for _ in range(3))
    assert len(told(caplog)) == 1 and "ivcap context login" in told(caplog)[0]
