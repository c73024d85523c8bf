"""Reading contents: what a server may show, what it may do to a transfer, and that no wrong byte comes through."""

# ruff: noqa: SIM117 (what is set up, and what is expected of it, on lines of their own)
from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ivcapfs import errors
from ivcapfs.client import Connection
from ivcapfs.client.rate import MUCH, LeastRate
from ivcapfs.models import Content
from tests.client.fakeorigin import (
    LIMITS,
    UUID,
    Answer,
    Asked,
    Origin,
    Reply,
    as_json,
    client,
    ranged,
    record,
    with_blob,
)  # fmt: skip

DATA = random.Random(7).randbytes(300_000)
E1 = Content('"e1"', len(DATA), strong=True)


@pytest.fixture(autouse=True, params=["direct", "proxied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test over both transports: the rules are the same."""
    if request.param == "proxied":
        monkeypatch.setattr("ivcapfs.client.network.Network.is_proxied", lambda self, url: True)


def read(connection: Connection, start: int = 0, stop: int = len(DATA), expected: Content | None = None) -> bytes:
    """Read some bytes."""
    with connection.blobs.open_range(UUID, start, stop, expected=expected) as stream:
        return b"".join(stream)


def blob_requests(origin: Origin) -> list[Asked]:
    return [asked for asked in origin.asked if asked.path.endswith("/blob")]


def first_then(first: Answer, then: Answer) -> Answer:
    """Serve the first GET by one function, all later ones by another."""
    answers = [first]
    return lambda asked: answers.pop()(asked) if answers and asked.method == "GET" else then(asked)


def whole(data: bytes = DATA, etag: str = '"e1"', length: int | None = None) -> Answer:
    """Serve all of `data` whatever range is asked for."""
    return lambda _: Reply(200, {"ETag": etag}, data, length)


# A good server


@pytest.mark.parametrize(("start", "stop"), [(0, len(DATA)), (0, 1), (5, 70_000), (len(DATA) - 1, len(DATA))])
@pytest.mark.parametrize("expected", [None, E1])
@pytest.mark.parametrize("blob", [ranged(DATA), whole(), whole(length=-1)])
def test_ranges(start: int, stop: int, expected: Content | None, blob: Answer) -> None:
    with Origin(with_blob(blob, size=len(DATA))) as origin, client(origin.url) as connection:
        with connection.blobs.open_range(UUID, start, stop, expected=expected) as stream:
            assert stream.content == E1
            assert b"".join(stream) == DATA[start:stop]


def test_if_range_is_sent_with_a_strong_tag_only() -> None:
    with Origin(with_blob(ranged(DATA))) as origin, client(origin.url) as connection:
        read(connection, 0, 10, E1)
        origin.answer = with_blob(ranged(DATA, 'W/"e1"'))
        read(connection, 0, 10, Content('W/"e1"', len(DATA)))
        read(connection, 0, 10)
    assert [asked.headers.get("if-range") for asked in blob_requests(origin)] == ['"e1"', None, None]


def test_an_empty_range_with_known_content_makes_no_request() -> None:
    with Origin(with_blob(ranged(DATA))) as origin, client(origin.url) as connection:
        assert read(connection, 7, 7, E1) == b""
        assert not origin.asked
        with connection.blobs.open_range(UUID, 7, 7, expected=None) as stream:
            assert stream.content == E1 and list(stream) == []


def test_the_record_is_read_once_and_its_connection_kept() -> None:
    with Origin(with_blob(ranged(DATA))) as origin, client(origin.url) as connection:
        for _ in range(5):
            read(connection, 0, 10)
    assert len(origin.asked) == 6


def test_no_such_range() -> None:
    with Origin(with_blob(ranged(DATA))) as origin, client(origin.url) as connection:
        for start, stop in [(-1, 5), (5, 4)]:
            with pytest.raises(ValueError):
                read(connection, start, stop)


# Validators


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"ETag": '"a"'}, Content('"a"', 4, strong=True)),
        ({"ETag": 'W/"a"'}, Content('W/"a"', 4)),
        ({"ETag": "bare"}, Content("bare", 4)),
        ({"ETag": '"é"'}, Content('"é"', 4)),
        ({"Last-Modified": "Mon"}, Content("last-modified:Mon;size:4", 4)),
        ({}, Content("size:4", 4)),
    ],
)
def test_validators(headers: dict[str, str], content: Content) -> None:
    with Origin(with_blob(lambda _: Reply(200, headers, b"data"))) as origin, client(origin.url) as connection:
        assert connection.blobs.head(UUID) == content
        assert read(connection, 1, 3, content) == b"at"


# Other content


@pytest.mark.parametrize(
    "blob",
    [
        ranged(DATA, '"e2"'),
        ranged(DATA, None),
        ranged(DATA + b"x"),
        ranged(DATA[:100]),
        ranged(b""),
        whole(etag='"e2"'),
        whole(DATA[:-1]),
    ],
)
def test_changed_content(blob: Answer) -> None:
    with Origin(with_blob(blob)) as origin, client(origin.url) as connection, pytest.raises(errors.ContentChanged):
        read(connection, 1000, 2000, E1)


# Answers that are not what was asked for


def partial(text: str, body: bytes = DATA[100:200], length: int | None = None) -> Answer:
    return lambda _: Reply(206, {"ETag": '"e1"', **({"Content-Range": text} if text else {})}, body, length)


@pytest.mark.parametrize(
    "blob",
    [
        partial(""),
        partial("bytes 100-199/*"),
        partial("bytes 101-200/300000"),
        partial("bytes 0-99/300000"),
        partial("bytes 100-200/300000", DATA[100:201]),
        partial("bytes 100-199/150"),
        partial("bytes 199-100/300000"),
        partial("items 100-199/300000"),
        partial("bytes 100-199/300000", DATA[100:200], 99),
        partial("bytes 100-199/300000", DATA[100:201]),
        partial("bytes ¹00-199/300000"),
        lambda asked: Reply(206, {"Content-Type": "multipart/byteranges; boundary=x"}, b"--x--"),
        lambda asked: Reply(200, {"Content-Encoding": "gzip"}, DATA),
        lambda asked: Reply(206, {"Content-Encoding": "gzip", "Content-Range": "bytes 100-199/300000"}, DATA[100:200]),
        lambda asked: Reply(204),
        lambda asked: Reply(203, {}, DATA),
        lambda asked: Reply(416),
        whole(DATA[:150]),
    ],
)
def test_answers_that_are_refused_before_a_byte_is_read(blob: Answer) -> None:
    with Origin(with_blob(blob)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ProtocolError) as caught:
            connection.blobs.open_range(UUID, 100, 200, expected=None).__enter__()
    assert not isinstance(caught.value, errors.ContentChanged)


def test_more_than_was_said_is_refused() -> None:
    with (
        Origin(with_blob(partial("bytes 100-199/300000", DATA[100:300], -1))) as origin,
        client(origin.url) as connection,
    ):
        with pytest.raises(errors.ProtocolError):
            read(connection, 100, 200)


def test_a_shorter_part_is_taken_and_the_rest_asked_for() -> None:
    def stingy(asked: Asked) -> Reply:
        first, last = map(int, re.findall(r"\d+", asked.headers["range"]))
        last = min(last, first + 29)
        return Reply(206, {"ETag": '"e1"', "Content-Range": f"bytes {first}-{last}/300000"}, DATA[first : last + 1])

    with Origin(with_blob(stingy)) as origin, client(origin.url) as connection:
        assert read(connection, 100, 200, E1) == DATA[100:200]
    assert len(blob_requests(origin)) == 4


# Transfers that break


def breaking(after: int, etag: str = '"e1"') -> Answer:
    """Serve ranges, but hang up after some bytes of each."""
    good = ranged(DATA, etag)

    def answer(asked: Asked) -> Reply:
        reply = good(asked)
        assert isinstance(reply.body, bytes)
        return replace(reply, body=reply.body[:after], length=len(reply.body))

    return answer


def test_a_broken_transfer_goes_on_where_it_broke() -> None:
    with Origin(with_blob(breaking(40_000))) as origin, client(origin.url) as connection:
        assert read(connection, 10, 250_010) == DATA[10:250_010]
    starts = [int(asked.headers["range"][6:].split("-")[0]) for asked in blob_requests(origin)]
    assert starts == [10 + 40_000 * step for step in range(7)]


def test_a_whole_answer_that_breaks_goes_on_too() -> None:
    cut = whole(DATA[:200_000], length=len(DATA))
    with Origin(with_blob(first_then(cut, whole()))) as origin, client(origin.url) as connection:
        assert read(connection, 10) == DATA[10:]


def test_an_unannounced_end_is_noticed() -> None:
    def cut(asked: Asked) -> Reply:
        return replace(ranged(DATA)(asked), body=DATA[:999], length=-1)

    with Origin(with_blob(first_then(cut, ranged(DATA)))) as origin, client(origin.url) as connection:
        assert read(connection) == DATA


def test_unannounced_ends_without_progress_end() -> None:
    def cut(asked: Asked) -> Reply:
        return replace(ranged(DATA)(asked), body=b"", length=-1) if len(origin.asked) < 50 else Reply(403)

    with Origin(ranged(DATA)) as origin, client(origin.url) as connection:
        origin.answer = with_blob(cut)
        with pytest.raises(errors.ConnectionBroken):
            read(connection)


def test_no_progress_ends() -> None:
    with Origin(with_blob(breaking(0))) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ConnectionBroken):
            read(connection)
    assert len(blob_requests(origin)) == LIMITS.retries + 1


@pytest.mark.parametrize("then", [ranged(DATA, '"e2"'), ranged(DATA + b"x"), whole(etag='"e2"')])
@pytest.mark.parametrize("expected", [None, E1])
def test_other_content_after_a_break(then: Answer, expected: Content | None) -> None:
    with Origin(with_blob(first_then(breaking(1000), then))) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ContentChanged):
            read(connection, expected=expected)


def test_unavailable_in_between() -> None:
    with Origin(with_blob(first_then(lambda _: Reply(503), ranged(DATA)))) as origin, client(origin.url) as connection:
        assert read(connection) == DATA


# Slow transfers


def dripping(origin: Origin) -> Answer:
    def answer(_: Asked) -> Reply:
        return Reply(206, {"Content-Range": "bytes 0-299999/300000"}, origin.drip(b"x"), length=300_000)

    return answer


def test_a_drip_is_given_up() -> None:
    with Origin(ranged(DATA)) as origin:
        origin.answer = with_blob(dripping(origin))
        with client(origin.url, limits=replace(LIMITS, idle=0.3, least_rate=1000)) as connection:
            with pytest.raises(errors.DeadlineExceeded):
                read(connection)
    assert len(blob_requests(origin)) == 1


def test_a_stall_after_a_good_start_is_resumed() -> None:
    def stall(origin: Origin) -> Answer:
        def parts() -> Iterator[bytes]:
            yield DATA[:200_000]
            origin.stopping.wait(30)

        return lambda _: Reply(206, {"ETag": '"e1"', "Content-Range": "bytes 0-299999/300000"}, parts(), length=300_000)

    with Origin(ranged(DATA)) as origin:
        origin.answer = with_blob(first_then(stall(origin), ranged(DATA)))
        with client(origin.url, limits=replace(LIMITS, idle=0.5, least_rate=1000)) as connection:
            assert read(connection) == DATA


def test_one_that_falls_silent_again_and_again_is_given_up_although_each_answer_brings_something() -> None:
    def half(origin: Origin) -> Answer:
        def answer(asked: Asked) -> Reply:
            first = int(asked.headers["range"].removeprefix("bytes=").partition("-")[0])
            missing = DATA[first:]

            def parts() -> Iterator[bytes]:
                yield missing[: len(missing) // 2]
                origin.stopping.wait(30)

            span = {"ETag": '"e1"', "Content-Range": f"bytes {first}-299999/300000"}
            return Reply(206, span, parts(), length=len(missing))

        return answer

    with Origin(ranged(DATA)) as origin:
        origin.answer = with_blob(half(origin))
        with client(origin.url, limits=replace(LIMITS, idle=0.3, least_rate=1)) as connection:
            with pytest.raises(errors.DeadlineExceeded):
                read(connection)
        assert len(blob_requests(origin)) == 2


def test_silences_far_apart_are_not_counted_together() -> None:
    rate = LeastRate(replace(LIMITS, idle=20.0, least_rate=1))
    for _ in range(5):
        rate.waited(0.1, MUCH)
        rate.silent(20.0)
    rate.waited(0.1, MUCH - 1)
    with pytest.raises(errors.DeadlineExceeded):
        rate.silent(20.0)


@pytest.mark.parametrize("form", ["cut off", "short range"])
def test_a_byte_with_each_answer_is_under_the_least_rate(form: str) -> None:
    def answer(asked: Asked) -> Reply:
        first = int(asked.headers["range"].removeprefix("bytes=").partition("-")[0])
        time.sleep(0.02)
        if form == "short range":
            return Reply(206, {"ETag": '"e1"', "Content-Range": f"bytes {first}-{first}/300000"}, DATA[first:][:1])
        whole = {"ETag": '"e1"', "Content-Range": f"bytes {first}-299999/300000"}
        return Reply(206, whole, DATA[first:][:1], length=300_000 - first)

    with Origin(with_blob(answer)) as origin:
        with client(origin.url, limits=replace(LIMITS, idle=0.3, least_rate=1000)) as connection:
            with pytest.raises(errors.DeadlineExceeded):
                read(connection)
        assert len(blob_requests(origin)) < 50


# Ending early


@pytest.mark.parametrize("how", ["stopped", "closed"])
def test_a_transfer_can_be_ended(how: str) -> None:
    with Origin(ranged(DATA)) as origin:
        origin.answer = with_blob(dripping(origin))
        connection = client(origin.url)
        over = threading.Event()
        with pytest.raises(errors.Closing):
            with connection.blobs.open_range(UUID, 0, 300_000, expected=None, stopped=over.is_set) as stream:
                for _ in stream:
                    over.set() if how == "stopped" else connection.close()
        connection.close()


def test_leaving_early_is_no_error() -> None:
    with Origin(with_blob(ranged(DATA))) as origin, client(origin.url) as connection:
        with connection.blobs.open_range(UUID, 0, 300_000, expected=None) as stream:
            next(iter(stream))
        assert read(connection) == DATA


# Where the content is


@pytest.mark.parametrize(
    "fields", [{"status": "pending"}, {"status": "error"}, {"status": "strange"}, {"data-href": None}]
)
def test_not_ready(fields: dict[str, str | None]) -> None:
    with Origin(with_blob(ranged(DATA), **fields)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.NotReady):
            read(connection)
        with pytest.raises(errors.NotReady):
            connection.blobs.head(UUID)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_address_is_asked_for_anew_once(status: int) -> None:
    """The store takes one signature at a time; the record names the present one."""
    good = [1]

    def store_answer(asked: Asked) -> Reply:
        return ranged(DATA)(asked) if asked.target == f"/key?sig={good[0]}" else Reply(status)

    with Origin(store_answer) as store:
        answer: Answer = lambda _: as_json(record(**{"data-href": f"{store.url}/key?sig={good[0]}"}))  # noqa: E731
        with Origin(answer) as origin, client(origin.url) as connection:
            assert read(connection, 0, 9) == DATA[:9]
            good[0] = 2
            assert read(connection, 0, 9) == DATA[:9]
            assert connection.blobs.head(UUID) == E1
            store.answer = lambda _: Reply(status)
            with pytest.raises(errors.ApiError) as caught:
                read(connection, 0, 9)
            assert caught.value.status == status
        assert not any("authorization" in asked.headers for asked in store.asked)
        assert all("authorization" in asked.headers for asked in origin.asked)


def test_a_fresh_address_that_is_refused_is_not_asked_for_anew() -> None:
    with Origin(with_blob(lambda _: Reply(403))) as origin, client(origin.url) as connection:
        with pytest.raises(errors.NotPermitted):
            read(connection)
    assert len(origin.asked) == 2


def test_a_redirect_to_a_store_keeps_the_range_and_not_the_token() -> None:
    with Origin(ranged(DATA)) as store:
        moved: Answer = lambda _: Reply(307, {"Location": store.url + "/key?sig=1"})  # noqa: E731
        with Origin(with_blob(moved)) as origin, client(origin.url) as connection:
            assert read(connection, 5, 50, E1) == DATA[5:50]
    assert store.asked[0].headers["range"] == "bytes=5-49"
    assert store.asked[0].headers["if-range"] == '"e1"'
    assert "authorization" not in store.asked[0].headers


def test_an_external_address_of_the_platform_itself_is_asked_at_the_base() -> None:
    href = f"https://external.invalid/1/artifacts/{UUID}/blob?v=1"
    with Origin(with_blob(ranged(DATA), **{"data-href": href})) as origin, client(origin.url) as connection:
        assert read(connection, 0, 9) == DATA[:9]
    assert origin.asked[-1].target == f"/1/artifacts/{UUID}/blob?v=1"
    assert "authorization" in origin.asked[-1].headers


UUIDS = [UUID[:-1] + digit for digit in "1234"]


def many(query: str = "", wrong: str = "") -> Answer:
    """Serve any artifact's content at an address with its uuid and `query`, but that of the artifact `wrong`."""

    def answer(asked: Asked) -> Reply:
        uuid = asked.path.split("/")[-1][-36:]
        if asked.path.startswith("/there/"):
            return Reply(404) if uuid == wrong else ranged(DATA)(asked)
        if asked.path.startswith("/elsewhere/"):
            return ranged(DATA)(asked)
        place = "elsewhere" if uuid == wrong else "there"
        return as_json(record(id=uuid, **{"data-href": f"/{place}/{uuid}{query}"}))

    return answer


def read_all(connection: Connection, uuids: list[str]) -> None:
    for uuid in uuids:
        with connection.blobs.open_range(uuid, 0, 1, expected=None, size=len(DATA)) as stream:
            assert b"".join(stream) == DATA[:1]


def test_the_cache_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivcapfs.client.blobs._MOST_PLACES", 2)
    with Origin(many(query="?signed=1")) as origin, client(origin.url) as connection:
        read_all(connection, UUIDS * 2)
    assert len(origin.asked) == 16


def test_a_signed_address_is_never_guessed_from_anothers() -> None:
    with Origin(many(query="?signed=1")) as origin, client(origin.url) as connection:
        read_all(connection, UUIDS)
    assert len(origin.asked) == 8


def test_once_one_address_is_known_the_others_records_need_not_be_read() -> None:
    with Origin(many()) as origin, client(origin.url) as connection:
        read_all(connection, UUIDS)
    assert len(origin.asked) == 5


@pytest.mark.parametrize("answer", [Reply(400), Reply(200, {}, b"a page for everything"), whole(b"x" * 500_000)])
def test_whatever_else_is_at_a_guessed_address_the_record_is_read(answer: Reply | Answer) -> None:
    def serve(asked: Asked) -> Reply:
        if asked.path == f"/there/{UUIDS[1]}":
            return answer if isinstance(answer, Reply) else answer(asked)
        return many(wrong=UUIDS[1])(asked)

    with Origin(serve) as origin, client(origin.url) as connection:
        read_all(connection, UUIDS[:2])


def test_without_its_size_no_address_is_guessed() -> None:
    with Origin(many()) as origin, client(origin.url) as connection:
        for uuid in UUIDS:
            with connection.blobs.open_range(uuid, 0, 1, expected=None) as stream:
                assert b"".join(stream) == DATA[:1]
    assert len(origin.asked) == 8


def test_a_wrong_guess_of_an_address_is_put_right_by_the_record() -> None:
    with Origin(many(wrong=UUIDS[2])) as origin, client(origin.url) as connection:
        read_all(connection, UUIDS)
    assert {asked.path.split("/")[1] for asked in origin.asked} >= {"there", "elsewhere"}


# head


def no_head(status: int, blob: Answer) -> Answer:
    return lambda asked: Reply(status) if asked.method == "HEAD" else blob(asked)


def lying_head(blob: Answer) -> Answer:
    return lambda asked: Reply(200, {}, b"") if asked.method == "HEAD" else blob(asked)


@pytest.mark.parametrize("data", [DATA, b"x", b""])
@pytest.mark.parametrize("wrap", [lambda blob: blob, *(
    (lambda blob, status=status: no_head(status, blob)) for status in (400, 403, 405, 501))])  # fmt: skip
@pytest.mark.parametrize("serve", [ranged, whole])
def test_head(data: bytes, wrap: Callable[[Answer], Answer], serve: Callable[[bytes], Answer]) -> None:
    with Origin(with_blob(wrap(serve(data)), size=len(data))) as origin, client(origin.url) as connection:
        got = connection.blobs.head(UUID)
    assert got.size == len(data)


def test_a_head_of_length_0_is_not_believed_where_the_record_says_more() -> None:
    with Origin(with_blob(lying_head(ranged(DATA)), size=len(DATA))) as origin, client(origin.url) as connection:
        assert connection.blobs.head(UUID) == E1


def test_a_head_that_is_unavailable_is_repeated() -> None:
    replies = [Reply(503), Reply(raw=[])]
    blob: Answer = lambda asked: replies.pop() if replies else ranged(DATA)(asked)  # noqa: E731
    with Origin(with_blob(blob)) as origin, client(origin.url) as connection:
        assert connection.blobs.head(UUID) == E1


def test_no_size_anywhere() -> None:
    with Origin(with_blob(whole(length=-1), size=None)) as origin, client(origin.url) as connection:
        with pytest.raises(errors.ProtocolError):
            connection.blobs.head(UUID)


def test_many_threads() -> None:
    wrong: list[int] = []
    with Origin(with_blob(breaking(9_000))) as origin, client(origin.url) as connection:

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(5):
                start = dice.randrange(len(DATA) - 20_000)
                if read(connection, start, start + 20_000, E1) != DATA[start : start + 20_000]:
                    wrong.append(start)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
