"""Connections of a node, seen from the other end: vetting, one session per node id, limits, time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from leyden.hooks.types import PeerInfo
from leyden.node import peer as peer_module
from leyden.node import peers as peers_module
from leyden.node.core import NodeCore
from leyden.node.peer import Peer, PeerState
from leyden.node.peers import ConnectFailed
from leyden.testing.scripted_peer import ScriptedPeer
from leyden.testing.simulation import SimNode, Simulation, SimWire
from leyden.wire import ErrorMessage, Init, Ping, Pong, WarningMessage

Answer = Callable[[str | None], None]


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    made = Simulation(1, tmp_path / "chain", blocks=1)
    yield made
    made.close()


@pytest.fixture
def node(simulation: Simulation) -> SimNode:
    return simulation.add_node("alice")


def ready(node: SimNode) -> list[Peer]:
    return node.core.peers.connected()


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_quiet_peer_is_pinged_and_kept(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect()
    peer.answer_pings = False
    simulation.advance(2 * peer_module.PING_INTERVAL + 1)
    asked = peer.expect(Ping)
    peer.send(Pong(ignored=bytes(asked.num_pong_bytes)))
    simulation.advance(peer_module.PING_INTERVAL)
    peer.ping()


def test_two_idle_nodes_stay_connected(simulation: Simulation, node: SimNode) -> None:
    other = simulation.add_node("bob")
    simulation.connect(node, other)
    simulation.advance(600)
    assert len(ready(node)) == len(ready(other)) == 1


@pytest.mark.proves("C-146")
def test_a_peer_without_pong_is_left(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect()
    peer.answer_pings = False
    simulation.advance(2 * peer_module.PING_INTERVAL + 1)
    asked = peer.expect(Ping)
    simulation.advance(peer_module.PING_INTERVAL)
    peer.expect_closed()
    wrong = ScriptedPeer(simulation, node).connect()
    wrong.send(Pong(ignored=bytes(asked.num_pong_bytes + 1)))
    wrong.expect_closed("C-146")


@pytest.mark.parametrize("acts", [0, 1])
def test_a_stalled_handshake_ends(simulation: Simulation, node: SimNode, acts: int) -> None:
    peer = ScriptedPeer(simulation, node).dial()
    if acts:
        peer.write(peer.initiator().act_one())
    simulation.advance(peer_module.HANDSHAKE_TIMEOUT - 1)
    assert not peer.closed
    simulation.advance(2)
    assert peer.closed
    assert not node.wires


def test_a_dialled_node_that_stalls_is_given_up(simulation: Simulation, node: SimNode) -> None:
    """The caller of ``connect`` hears of it, and nothing stays behind."""
    heard: list[BaseException | None] = []
    peer = ScriptedPeer(simulation, node)
    node.core.engine.post(lambda: node.core.peers.connect(peer.node_id, "stall.example", 9735, heard.append))
    peer.listen()
    simulation.advance(peer_module.HANDSHAKE_TIMEOUT + 1)
    assert peer.closed
    assert [type(error) for error in heard] == [ConnectFailed]


def test_a_peer_that_never_sends_init_is_left(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect(init=False)
    simulation.advance(peer_module.HANDSHAKE_TIMEOUT + 1)
    assert peer.expect_closed() == ""


# --- one session per node id ------------------------------------------------------------------------------------------


@pytest.mark.proves("C-141")
def test_the_newer_connection_replaces_the_older(simulation: Simulation, node: SimNode) -> None:
    older = ScriptedPeer(simulation, node).connect()
    simulation.advance(peers_module.REPLACE_SECONDS + 1)
    newer = ScriptedPeer(simulation, node).connect()
    older.expect_closed()
    newer.ping()
    assert len(ready(node)) == 1


@pytest.mark.proves("C-141")
def test_never_two_in_the_same_direction_within_seconds(simulation: Simulation, node: SimNode) -> None:
    older = ScriptedPeer(simulation, node).connect()
    newer = ScriptedPeer(simulation, node).connect()
    newer.expect_closed()
    older.ping()


@pytest.mark.proves("C-141")
@pytest.mark.parametrize("first_inbound", [True, False])
def test_both_dialled_at_once(simulation: Simulation, node: SimNode, first_inbound: bool) -> None:
    """Both ends must keep the same one, whichever they see first."""
    kept = []
    for inbound in (first_inbound, not first_inbound):
        peer = ScriptedPeer(simulation, node)
        kept.append((inbound, peer.connect() if inbound else peer.accept()))
    smaller_dialled = kept[0][1].node_id < node.node_id
    for inbound, peer in kept:
        if inbound is smaller_dialled:
            peer.ping()
        else:
            peer.expect_closed()
    assert len(ready(node)) == 1


def test_two_nodes_that_dial_each_other_do_not_chase(simulation: Simulation, node: SimNode) -> None:
    other = simulation.add_node("bob")
    ends = [SimWire(simulation, each) for each in (node, other, other, node)]
    for near, far in ((ends[0], ends[1]), (ends[2], ends[3])):
        near.other, far.other = far, near
    ends[0].open(other.node_id)
    ends[1].open(None)
    ends[2].open(node.node_id)
    ends[3].open(None)
    simulation.settle()
    assert len(ready(node)) == len(ready(other)) == 1
    assert ready(node)[0].inbound is not ready(other)[0].inbound  # the two ends of one connection
    assert len(node.wires) == len(other.wires) == 1
    simulation.advance(60)
    assert len(ready(node)) == len(ready(other)) == 1


def test_a_replaced_connection_answers_nobody_who_waits(simulation: Simulation, node: SimNode) -> None:
    """A caller of ``connect`` that finds a half-vetted peer gets the newer connection, not the end of the older."""
    answers: list[BaseException | None] = []
    pending: list[object] = []
    manager = node.core.peers
    manager._ask_peer = lambda _info, answer: pending.append(answer)
    older = ScriptedPeer(simulation, node).connect()
    node.core.engine.post(lambda: manager.connect(older.node_id, "example", 9735, answers.append))
    simulation.advance(peers_module.REPLACE_SECONDS + 1)
    manager._ask_peer = lambda _info, answer: answer(None)
    ScriptedPeer(simulation, node).accept().ping()
    older.expect_closed()
    assert answers == [None]


def test_connect_joins_an_attempt_that_is_under_way(simulation: Simulation, node: SimNode) -> None:
    """A second connection would end one of the two, at the whim of the other side."""
    answers: list[BaseException | None] = []
    dialled: list[str] = []
    manager = node.core.peers
    manager.dial = lambda _node_id, host, _port: dialled.append(host)
    peer = ScriptedPeer(simulation, node)
    for _ in range(2):
        node.core.engine.post(lambda: manager.connect(peer.node_id, "example", 9735, answers.append))
    simulation.settle()
    assert dialled == ["example"]
    peer.accept()
    assert answers == [None, None]
    peer.vanish()
    node.core.engine.post(lambda: manager.connect(peer.node_id, "example", 9735, answers.append))
    simulation.settle()
    assert dialled == ["example", "example"], "what ended is tried again"


def test_who_waits_hears_of_the_last_attempt(simulation: Simulation, node: SimNode) -> None:
    answers: list[BaseException | None] = []
    manager = node.core.peers
    peer = ScriptedPeer(simulation, node)
    for host in ("stale.example", "fresh.example"):
        node.core.engine.post(lambda host=host: manager.connect(peer.node_id, host, 9735, answers.append))
    node.core.engine.post(lambda: manager.on_dial_failed(peer.node_id, OSError("refused")))
    simulation.settle()
    assert answers == []
    peer.accept()
    assert answers == [None, None]


def test_connecting_to_ourselves_is_refused(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node)
    peer.connect(init=False)
    node.core.peers._local_node_id = peer.node_id
    peer.send(peer.make_init())
    peer.expect_closed("ourselves")
    assert ready(node) == []


# --- disconnected on request ------------------------------------------------------------------------------------------


class Dials:
    """What the node dials by itself; nobody is there."""

    def __init__(self, node: SimNode) -> None:
        self.manager = node.core.peers
        self.node = node
        self.hosts: list[str] = []
        self.answers: list[BaseException | None] = []
        self.manager.dial = lambda _node_id, host, _port: self.hosts.append(host)

    def connect(self, peer: ScriptedPeer) -> None:
        self.node.core.engine.post(lambda: self.manager.connect(peer.node_id, "example", 9735, self.answers.append))
        self.node.simulation.settle()

    def disconnect(self, peer: ScriptedPeer) -> bool | None:
        found: list[bool] = []
        self.node.core.engine.request(lambda: self.manager.disconnect(peer.node_id), found.append, lambda _: None)
        self.node.simulation.settle()
        return found[0] if found else None

    def during(self, seconds: float) -> int:
        before = len(self.hosts)
        self.node.simulation.advance(seconds)
        return len(self.hosts) - before


def channel_peer(simulation: Simulation, node: SimNode) -> tuple[ScriptedPeer, Dials]:
    """Dialled by the node, with a channel between them."""
    dials = Dials(node)
    peer = ScriptedPeer(simulation, node)
    dials.connect(peer)
    peer.accept()
    peer.open(peer.answer())
    assert dials.answers == [None]
    return peer, dials


@pytest.fixture
def mined(tmp_path: Path) -> Iterator[Simulation]:
    """With coins that a faucet can give."""
    made = Simulation(1, tmp_path / "mined")
    yield made
    made.close()


def test_a_peer_with_a_channel_stays_disconnected(mined: Simulation) -> None:
    node = mined.add_node("alice")
    peer, dials = channel_peer(mined, node)
    assert dials.disconnect(peer) is True
    peer.expect_closed()
    assert ready(node) == []
    assert dials.during(600) == 0
    assert dials.disconnect(peer) is False, "nothing left to end"
    # It may come by itself; losing that connection is no reason to dial.
    peer.connect()
    assert len(ready(node)) == 1
    peer.vanish()
    assert dials.during(600) == 0
    # Whoever connects wants the connection kept.
    dials.connect(peer)
    peer.accept()
    assert dials.answers == [None, None]
    peer.vanish()
    assert dials.during(2) == 1


def test_a_peer_that_is_being_dialled_is_left_alone(mined: Simulation) -> None:
    """Timers, dials and sockets that are under way when somebody disconnects come to nothing."""
    node = mined.add_node("alice")
    peer, dials = channel_peer(mined, node)
    peer.vanish()
    assert dials.disconnect(peer) is True, "it was about to be dialled"
    assert dials.during(600) == 0
    dials.connect(peer)
    assert dials.disconnect(peer) is True
    assert [str(error) for error in dials.answers[1:]] == [peers_module.DISCONNECTED]
    assert isinstance(dials.answers[1], ConnectFailed)
    peer.listen()  # the dial ends in a socket after all
    assert peer.closed
    assert dials.during(600) == 0
    dials.connect(peer)
    node.core.engine.post(lambda: dials.manager.on_dial_failed(peer.node_id, OSError("refused")))
    assert dials.during(2) == 1, "a connect that failed goes on trying"
    peer.listen()  # shaking hands
    assert dials.disconnect(peer) is True
    assert peer.closed
    assert dials.during(600) == 0


def test_a_retry_that_is_due_joins_an_attempt_that_is_under_way(mined: Simulation) -> None:
    """Else the second connection ends the first, or the other way round."""
    node = mined.add_node("alice")
    peer, dials = channel_peer(mined, node)
    peer.vanish()
    dials.connect(peer)
    assert dials.during(5) == 0
    peer.listen()
    assert dials.during(5) == 0
    peer.vanish()
    assert dials.during(5) == 1


def test_connect_joins_a_dial_that_outlived_a_disconnect(mined: Simulation) -> None:
    node = mined.add_node("alice")
    dials = Dials(node)
    peer = ScriptedPeer(mined, node)
    dials.connect(peer)
    dials.disconnect(peer)
    dials.connect(peer)
    assert dials.hosts == ["example"]
    peer.accept().ping()
    assert dials.answers[1:] == [None]


def test_a_stranger_cannot_be_disconnected(simulation: Simulation, node: SimNode) -> None:
    assert Dials(node).disconnect(ScriptedPeer(simulation, node)) is False
    assert node.core.peers._away == frozenset()


def test_a_start_forgets_who_was_disconnected(mined: Simulation) -> None:
    node = mined.add_node("alice")
    peer, dials = channel_peer(mined, node)
    dials.disconnect(peer)
    node.kill()
    node.start()
    dials = Dials(node)
    node.core.engine.post(node.core.peers.reconnect_all)
    mined.settle()
    assert dials.hosts == ["example"]


def test_a_failing_turn_dials_nobody_who_was_disconnected_before(mined: Simulation) -> None:
    """Nor does a ``connect`` in that turn count, whose caller is told that it failed."""
    node = mined.add_node("alice")
    peer, dials = channel_peer(mined, node)
    assert dials.disconnect(peer) is True
    node.store.fail_next()
    node.core.engine.post(lambda: change_a_row(node))
    assert dials.during(5) == 0
    node.store.fail_next()
    node.core.engine.post(lambda: change_a_row(node))
    dials.connect(peer)
    dials.during(5)
    peer.listen()
    assert peer.closed
    assert isinstance(dials.answers[-1], ConnectFailed)
    assert dials.during(600) == 0


def test_a_disconnect_whose_turn_fails_never_happened(mined: Simulation) -> None:
    node = mined.add_node("alice")
    peer, dials = channel_peer(mined, node)
    node.store.fail_next()
    node.core.engine.post(lambda: change_a_row(node))
    assert dials.disconnect(peer) is None
    assert peer.closed
    assert dials.during(5) > 0


# --- vetting ----------------------------------------------------------------------------------------------------------


def test_why_a_peer_is_refused_is_in_the_log_only(simulation: Simulation, node: SimNode) -> None:
    seen: list[PeerInfo] = []

    def refuse(info: PeerInfo, answer: Answer) -> None:
        seen.append(info)
        answer("owes us money")

    node.core.peers._ask_peer = refuse
    with structlog.testing.capture_logs() as logged:
        peer = ScriptedPeer(simulation, node).connect()
    assert peer.expect_closed(peers_module.NOT_ACCEPTED) == peers_module.NOT_ACCEPTED
    assert [entry["reason"] for entry in logged if entry["event"] == "peer_refused"] == ["owes us money"]
    assert seen[0].node_id == peer.node_id
    assert seen[0].inbound
    assert ready(node) == []


def test_the_caller_of_connect_hears_of_a_refusal(simulation: Simulation, node: SimNode) -> None:
    heard: list[BaseException | None] = []
    pending = hold_vetting(node.core)
    peer = ScriptedPeer(simulation, node)
    node.core.engine.post(lambda: node.core.peers.connect(peer.node_id, "peer.example", 9735, heard.append))
    peer.accept()
    assert heard == []
    node.core.engine.post(lambda: pending[0]("owes us money"))
    simulation.settle()
    assert [str(error) for error in heard] == ["this node refused the peer; its log says why"]
    peer.expect_closed(peers_module.NOT_ACCEPTED)


def hold_vetting(core: NodeCore) -> list[Answer]:
    pending: list[Answer] = []
    core.peers._ask_peer = lambda _info, answer: pending.append(answer)
    return pending


def test_messages_wait_for_the_vetting(simulation: Simulation, node: SimNode) -> None:
    pending = hold_vetting(node.core)
    peer = ScriptedPeer(simulation, node).connect()
    peer.send(WarningMessage(channel_id=bytes(32), data=b"early"), Ping(num_pong_bytes=1, ignored=b""))
    peer.expect(Pong)
    assert ready(node) == []
    node.core.engine.post(lambda: pending[0](None))
    simulation.settle()
    assert [each.state for each in ready(node)] == [PeerState.READY]


def test_a_flood_while_vetted_costs_the_connection(simulation: Simulation, node: SimNode) -> None:
    hold_vetting(node.core)
    peer = ScriptedPeer(simulation, node).connect()
    for _ in range(5):
        peer.send(WarningMessage(channel_id=bytes(32), data=bytes(60_000)))
        if peer.closed:
            break
    peer.expect_closed()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_rate_of_handshakes_is_bounded(simulation: Simulation, node: SimNode) -> None:
    manager = node.core.peers
    allowed = sum(manager.may_accept() for _ in range(1_000))
    assert allowed == peers_module.HANDSHAKE_BURST
    simulation.now += 1.0
    assert sum(manager.may_accept() for _ in range(1_000)) == peers_module.HANDSHAKES_PER_SECOND
    simulation.now -= 100_000.0  # a clock set back must not close the door
    manager.may_accept()
    simulation.now += 1.0
    assert manager.may_accept()


def test_peers_without_a_channel_are_bounded(
    simulation: Simulation, node: SimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "MAX_PEERS_WITHOUT_CHANNEL", 3)
    crowd = [ScriptedPeer(simulation, node, f"peer {n}").connect() for n in range(3)]
    assert not node.core.peers.may_accept()
    crowd[0].hang_up()
    assert node.core.peers.may_accept()


def test_a_ping_flood_costs_the_connection(simulation: Simulation, node: SimNode) -> None:
    bystander = ScriptedPeer(simulation, node, "bystander").connect()
    peer = ScriptedPeer(simulation, node).connect()
    flood = [Ping(num_pong_bytes=65_531, ignored=b"")] * (peer_module.MAX_PINGS_PER_INTERVAL + 1)
    peer.send(*flood)
    for _ in range(peer_module.MAX_PINGS_PER_INTERVAL):
        peer.expect(Pong)
    peer.expect_closed("pings")
    bystander.ping()


def test_pings_at_a_usual_rate_go_on_for_ever(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect()
    for _ in range(400):
        peer.ping()
        simulation.advance(1)


# --- storage trouble --------------------------------------------------------------------------------------------------


def change_a_row(node: SimNode) -> None:
    """Any turn with something to write."""
    node.core.engine.journal.put(b"mtest", bytes([len(node.points) % 250 + 1]))


def test_a_failed_commit_disconnects_and_nothing_leaves(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect()
    node.store.fail_next()
    node.core.engine.post(lambda: change_a_row(node))
    peer.send(Ping(num_pong_bytes=5, ignored=b""))
    assert peer.expect_closed() == ""  # no pong, no warning: that turn never happened
    assert node.core.engine.degraded
    assert ready(node) == []
    assert not node.wires
    assert not node.core.peers.may_accept()
    simulation.advance(3)
    assert not node.core.engine.degraded
    assert node.core.peers.may_accept()
    ScriptedPeer(simulation, node).connect().ping()


def test_a_connection_that_ended_in_the_dropped_turn_is_closed_too(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect()
    node.store.fail_next()
    node.core.engine.post(lambda: change_a_row(node))
    peer.send(b"\x00\x02")
    peer.expect_closed()
    assert not node.wires
    simulation.advance(3)
    ScriptedPeer(simulation, node).connect().ping()


def test_a_handshake_in_the_dropped_turn_is_closed_too(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).dial()
    node.store.fail_next()
    node.core.engine.post(lambda: change_a_row(node))
    peer.write(peer.initiator().act_one())
    assert peer.closed
    assert not node.wires


# --- bugs of our own --------------------------------------------------------------------------------------------------


def test_a_handler_that_breaks_costs_the_connection(
    simulation: Simulation, node: SimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that was taken and lost would leave the channel out of step: reestablish puts it right."""
    bystander = ScriptedPeer(simulation, node, "bystander").connect()
    peer = ScriptedPeer(simulation, node).connect()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(node.core.channels, "on_message", broken)
    peer.send(ErrorMessage(channel_id=bytes(32), data=b""))
    peer.expect_closed()
    bystander.ping()


def test_no_memory_of_peers_that_left(simulation: Simulation, node: SimNode) -> None:
    for n in range(5):
        ScriptedPeer(simulation, node, f"peer {n}").connect().hang_up()
    manager = node.core.peers
    for held in (manager._connections, manager._by_node, manager._since, manager._touched, manager._waiting):
        assert not held


def test_init_says_what_we_are(simulation: Simulation, node: SimNode) -> None:
    peer = ScriptedPeer(simulation, node).connect()
    said = peer.remote_init
    assert isinstance(said, Init)
    assert said.networks == (node.config.network.chain_hash,)
    assert said.remote_addr is None
