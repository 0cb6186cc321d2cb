"""The queue of a node: its transitions, and what is left of them after a death."""

import sqlite3
from pathlib import Path

import pytest
from node_scans import die, killed

from rbs.errors import RbsError
from rbs.node.queue import FILE, Entry, KnownUidError, Queue, Restoration, State


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Queue:
    return Queue(tmp_path, clock)


def add(queue: Queue, name: str, study: str = "s") -> Entry:
    entry = queue.add(
        uid=name, study=study, path=Path(f"/spool/{name}.dcm"), sha256=f"hash {name}", size=10, origin="CAM"
    )
    assert entry
    return entry


def ready(queue: Queue, name: str, study: str = "s") -> Entry:
    entry = add(queue, name, study)
    queue.examined(entry.id, acquisition=name, view=None, deadline=0)
    return entry


def finish(queue: Queue, tmp_path: Path, *entries: Entry, to: tuple[str, ...] = ("pacs",)) -> bool:
    done = {}
    for entry in entries:
        path = tmp_path / f"{entry.id}.dcm"
        path.write_bytes(b"12345")
        done[entry.id] = Restoration((path,), 1.0, ("look",))
    return queue.restored(done, to)


def test_a_scan_goes_through_its_states(queue, tmp_path):
    entry = add(queue, "a")
    assert (entry.state, entry.origin, entry.received) == (State.RECEIVED, "CAM", 1000)
    assert queue.begin().id == entry.id
    assert queue.examined(entry.id, acquisition="k", view=None, deadline=0) is State.READY
    (claimed,) = queue.claim()
    assert (claimed.state, claimed.attempts) == (State.RESTORING, 1)
    assert queue.claim() == []
    assert finish(queue, tmp_path, entry, to=("pacs", "archive"))
    first, second = queue.due()
    assert queue.delivered(first.id)
    assert queue.get(entry.id).state is State.RESTORED
    assert queue.delivered(second.id)
    assert not queue.delivered(second.id)
    done = queue.get(entry.id)
    assert (done.state, done.reason, done.seconds) == (State.SENT, "look", 1.0)
    assert queue.counts()[State.SENT] == 1
    assert queue.bytes_held() == 15


def test_an_instance_enters_once(queue):
    entry = add(queue, "a")
    same = {"uid": "a", "study": "s", "path": entry.path, "size": 10, "origin": "CAM"}
    assert queue.add(**same, sha256=entry.sha256) is None
    with pytest.raises(KnownUidError, match=f"as number {entry.id}; .*rbs node drop {entry.id}"):
        queue.add(**same, sha256="other")
    assert queue.drop(entry.id) == entry
    assert queue.find("a") is None
    assert queue.bytes_held() == 0
    again = queue.add(**same, sha256="other")
    assert again.id > entry.id
    assert queue.find("a") == again


@pytest.mark.parametrize("views", [("anterior", "posterior"), ("posterior", "anterior")])
def test_two_views_are_claimed_together_in_any_order(queue, views):
    first, second = add(queue, "a"), add(queue, "b")
    assert queue.examined(first.id, acquisition="k", view=views[0], deadline=1120) is State.WAITING
    assert queue.claim() == []
    assert queue.examined(second.id, acquisition="k", view=views[1], deadline=1120) is State.READY
    assert [entry.id for entry in queue.claim()] == [first.id, second.id]


def test_a_view_that_stays_alone_waits_until_its_deadline(queue, clock, tmp_path):
    first = add(queue, "a")
    queue.examined(first.id, acquisition="k", view="anterior", deadline=1120)
    clock.now = 1119
    assert queue.claim() == []
    clock.now = 1120
    (alone,) = queue.claim()
    assert alone.reason == "its other view did not come within 120 s: restored alone"
    finish(queue, tmp_path, first)
    late = add(queue, "b")
    assert queue.examined(late.id, acquisition="k", view="posterior", deadline=1240) is State.READY
    assert [entry.id for entry in queue.claim()] == [late.id]


def test_where_two_of_a_view_would_fit_each_is_alone(queue):
    for name in "ab":
        state = queue.examined(add(queue, name).id, acquisition="k", view="anterior", deadline=1120)
    assert state is State.READY
    assert [len(queue.claim()) for _ in "ab"] == [1, 0]  # the second waits for the first of its study


def test_order_of_a_study_is_kept(queue, tmp_path):
    waiting = add(queue, "a")
    queue.examined(waiting.id, acquisition="k", view="anterior", deadline=1120)
    later, other = ready(queue, "b"), ready(queue, "c", study="t")
    assert [entry.id for entry in queue.claim()] == [other.id]
    assert queue.claim() == []
    queue.drop(waiting.id)
    assert [entry.id for entry in queue.claim()] == [later.id]


def test_deliveries_of_a_study_keep_their_order_for_each_destination(queue, tmp_path):
    for name in "ab":
        finish(
            queue, tmp_path, *(entry for _ in [ready(queue, name)] for entry in queue.claim()), to=("p", "q")
        )
    first = queue.due()
    assert [(delivery.entry, delivery.destination) for delivery in first] == [(1, "p"), (1, "q")]
    assert queue.failed(first[0].id, "no answer", due=1060)
    queue.delivered(first[1].id)
    assert [(delivery.entry, delivery.destination) for delivery in queue.due()] == [(2, "q")]
    (again, _) = queue.due(1060)
    assert (again.attempts, again.error, again.due) == (1, "no answer", 1060)
    assert queue.give_up(again.id, "no answer for 72 h")
    assert [(delivery.entry, delivery.destination) for delivery in queue.due()] == [(2, "p"), (2, "q")]
    assert queue.get(1).state is State.RESTORED  # and not sent
    assert queue.retry(1)
    assert queue.due()[0].id == again.id


def test_what_was_dropped_is_entered_nowhere(queue, tmp_path):
    entry = ready(queue, "a")
    queue.claim()
    queue.drop(entry.id)
    assert not finish(queue, tmp_path, entry)
    assert not queue.refuse(entry.id, "why", entry.path)
    assert queue.deliveries() == []
    assert queue.get(entry.id).state is State.DROPPED


def test_both_of_a_pair_are_entered_or_none(queue, tmp_path):
    first, second = add(queue, "a"), add(queue, "b")
    queue.examined(first.id, acquisition="k", view="anterior", deadline=1120)
    queue.examined(second.id, acquisition="k", view="posterior", deadline=1120)
    queue.claim()
    queue.drop(second.id)
    assert not finish(queue, tmp_path, first, second)
    assert queue.get(first.id).state is State.RESTORING
    assert queue.deliveries() == []


def test_deaths_of_the_worker_are_counted_and_stops_of_the_node_are_not(queue):
    entry = ready(queue, "a")
    for attempts in (1, 1, 1):
        assert queue.claim()[0].attempts == attempts
        assert queue.recover() == 1
    for attempts in (1, 2, 3, 4):
        assert queue.claim()[0].attempts == attempts
        assert queue.recover("killed by SIGKILL") == 1
    assert queue.get(entry.id).reason == "killed by SIGKILL"
    received = add(queue, "b", study="t")
    assert queue.begin().attempts == 1
    assert queue.recover("killed") == 1
    assert queue.begin().attempts == 2
    assert queue.get(received.id).state is State.RECEIVED


def test_a_refused_scan_can_be_tried_again_together_with_its_other_view(queue):
    entries = [add(queue, name) for name in "ab"]
    for entry in entries:
        queue.begin()
        assert queue.refuse(entry.id, "no velocity", Path("/refused/x.dcm"))
    assert queue.begin() is None
    assert [entry.reason for entry in queue.entries(State.REFUSED)] == ["no velocity"] * 2
    for entry, view in zip(entries, ("anterior", "posterior"), strict=True):
        assert queue.retry(entry.id)
        assert not queue.retry(entry.id)
        state = queue.examined(entry.id, acquisition="k", view=view, deadline=1120)
    assert state is State.READY
    assert len(queue.claim()) == 2


def test_only_what_was_sent_or_dropped_is_forgotten(queue, clock, tmp_path):
    sent, open_, dropped = ready(queue, "a"), add(queue, "b"), add(queue, "c")
    finish(queue, tmp_path, *queue.claim(), to=())
    queue.drop(dropped.id)
    clock.now += 100
    assert [entry.id for entry in queue.old(1050)] == [sent.id, dropped.id]
    assert queue.old(900) == []
    assert queue.files(sent.id) == [sent.path, tmp_path / "1.dcm"]
    assert not queue.forget(open_.id)
    assert queue.forget(sent.id)
    assert not queue.forget(sent.id)
    assert queue.files(sent.id) == queue.deliveries() == []
    assert queue.bytes_held() == open_.size
    assert queue.forget(dropped.id)
    assert queue.get(dropped.id) is None
    # A sent scan that comes again is known.
    assert queue.find("a").id == sent.id
    assert [entry.id for entry in queue.old(1050)] == []


def test_a_queue_of_a_newer_version_and_a_damaged_one_are_refused(tmp_path):
    Queue(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RbsError, match="a newer rbs wrote this queue; install"):
        Queue(tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(RbsError, match="the queue cannot be used"):
        Queue(damaged)


class Deadly(sqlite3.Connection):
    """A connection that kills the process before or after a transaction ends."""

    place = ""

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.place == "before":
            die()
        done = super().execute(sql, *values)
        if sql == "COMMIT":
            die()
        return done


STEPS = {
    "received": lambda queue, file: queue.add(
        uid="a", study="s", path=file, sha256="h", size=1, origin="CAM"
    ),
    "received, begun": lambda queue, _: queue.begin(),
    "ready": lambda queue, _: queue.examined(1, acquisition="k", view=None, deadline=0),
    "restoring": lambda queue, _: queue.claim(),
    "restored": lambda queue, file: queue.restored({1: Restoration((file,), 1.0)}, ["pacs"]),
    "restored, failed": lambda queue, _: queue.failed(1, "no answer", due=0),
    "sent": lambda queue, _: queue.delivered(1),
    "dropped": lambda queue, _: queue.drop(1),
}


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_death_in_any_transition_leaves_the_state_before_or_after_it(tmp_path, monkeypatch, place):
    queue = Queue(tmp_path)

    def deadly(step):
        own = Queue(tmp_path)
        del own._local.db
        connect = sqlite3.connect
        monkeypatch.setattr(Deadly, "place", place)
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Deadly, **k))
        step(own, tmp_path / FILE)

    for after, step in STEPS.items():
        before = queue.entries(), queue.deliveries()
        assert killed(lambda step=step: deadly(step))
        if place == "before":
            assert (queue.entries(), queue.deliveries()) == before
            step(queue, tmp_path / FILE)
        else:
            assert (queue.entries(), queue.deliveries()) != before
        assert [entry.state for entry in queue.entries()] == [after.partition(",")[0]]
