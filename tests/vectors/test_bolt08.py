"""BOLT 8, appendix A: handshakes in both roles with every failure, frames across two key rotations."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.crypto import ecdh, pubkey_create
from leyden.transport import HandshakeFailure, InitiatorHandshake, ResponderHandshake, Session, TransportError

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt08.json").read_text())
HANDSHAKES: list[dict[str, Any]] = DATA["handshakes"]
RULE_OF_FAILURE = {"READ_FAILED": "C-153"} | {
    f"ACT{act}_{what}": rule
    for act, rule in ((1, "C-151"), (2, "C-151"), (3, "C-152"))
    for what in ("BAD_VERSION", "BAD_PUBKEY", "BAD_TAG", "BAD_CIPHERTEXT")
}


def run_initiator(case: dict[str, Any]) -> Session:
    static = bytes.fromhex(case["static_secret"])
    acts = [bytes.fromhex(data) for _, data in case["acts"]]
    handshake = InitiatorHandshake(
        pubkey_create(static), bytes.fromhex(case["remote_static"]), bytes.fromhex(case["ephemeral_secret"])
    )
    assert handshake.act_one() == acts[0]
    remote_ephemeral = handshake.on_act_two(acts[1])
    assert handshake.act_three(ecdh(static, remote_ephemeral)) == acts[2]
    return handshake.session()


def run_responder(case: dict[str, Any]) -> Session:
    static = bytes.fromhex(case["static_secret"])
    acts = [bytes.fromhex(data) for _, data in case["acts"]]
    handshake = ResponderHandshake(pubkey_create(static), bytes.fromhex(case["ephemeral_secret"]))
    remote_ephemeral = handshake.on_act_one(acts[0])
    assert handshake.act_two(ecdh(static, remote_ephemeral)) == acts[1]
    initiator = next(c for c in HANDSHAKES if c["role"] == "initiator" and "failure" not in c)
    assert handshake.on_act_three(acts[2]) == pubkey_create(bytes.fromhex(initiator["static_secret"]))
    return handshake.session()


def run(case: dict[str, Any]) -> Session:
    return run_initiator(case) if case["role"] == "initiator" else run_responder(case)


def cases(failing: str | None) -> list[Any]:
    """``failing`` None: those that succeed; else those whose failure belongs to that rule."""
    chosen = []
    for case in HANDSHAKES:
        failure = case.get("failure", "")
        rule = RULE_OF_FAILURE["READ_FAILED"] if failure.endswith("READ_FAILED") else RULE_OF_FAILURE.get(failure)
        if rule == failing:
            chosen.append(pytest.param(case, id=f"{case['role']} {case['name']}"))
    return chosen


@pytest.mark.proves("C-150")
@pytest.mark.parametrize("case", cases(None))
def test_handshake_is_byte_exact(case: dict[str, Any]) -> None:
    ours = run(case)
    theirs = Session(
        send_key=bytes.fromhex(case["receive_key"]),
        receive_key=bytes.fromhex(case["send_key"]),
        chaining_key=bytes.fromhex(DATA["messages"]["chaining_key"]),
    )
    for _ in range(600):  # beyond a rotation: the chaining key counts too
        assert theirs.feed(ours.encrypt(b"out")) == [b"out"]
        assert ours.feed(theirs.encrypt(b"back")) == [b"back"]


def expect_failure(case: dict[str, Any], rule: str) -> None:
    with pytest.raises(TransportError) as caught:
        run(case)
    assert caught.value.failure is HandshakeFailure(case["failure"])
    assert caught.value.rule.id == rule


@pytest.mark.proves("C-151")
@pytest.mark.parametrize("case", cases("C-151"))
def test_bad_act_one_or_two(case: dict[str, Any]) -> None:
    expect_failure(case, "C-151")


@pytest.mark.proves("C-152")
@pytest.mark.parametrize("case", cases("C-152"))
def test_bad_act_three(case: dict[str, Any]) -> None:
    expect_failure(case, "C-152")


@pytest.mark.proves("C-153")
@pytest.mark.parametrize("case", cases("C-153"))
def test_short_act(case: dict[str, Any]) -> None:
    expect_failure(case, "C-153")


def test_no_case_was_left_out() -> None:
    assert len(HANDSHAKES) == 15
    assert sum(len(cases(rule)) for rule in (None, "C-151", "C-152", "C-153")) == 15


@pytest.mark.proves("C-155")
def test_frames_across_two_rotations() -> None:
    vector = DATA["messages"]
    chaining_key = bytes.fromhex(vector["chaining_key"])
    send_key, receive_key = bytes.fromhex(vector["send_key"]), bytes.fromhex(vector["receive_key"])
    plaintext = bytes.fromhex(vector["plaintext"])
    sender = Session(send_key=send_key, receive_key=receive_key, chaining_key=chaining_key)
    receiver = Session(send_key=receive_key, receive_key=send_key, chaining_key=chaining_key)
    frames = [sender.encrypt(plaintext) for _ in range(vector["count"])]
    for index, frame in vector["frames"].items():
        assert frames[int(index)].hex() == frame, index
    assert receiver.feed(b"".join(frames)) == [plaintext] * vector["count"]
