"""Which scripts may stand in ``shutdown`` and upfront (BOLT 2, closing initiation)."""

from leyden.bitcoin import segwit_program
from leyden.wire.features import Feature, Features


def is_allowed_shutdown_script(script: bytes, features: Features) -> bool:
    """P2WPKH and P2WSH always; witness programs of version 1 to 16 with ``option_shutdown_anysegwit``; with
    ``option_simple_close`` also OP_RETURN followed by one push of 6 to 80 bytes."""
    program = segwit_program(script)
    if program is not None:
        version, data = program
        if version == 0:
            return len(data) in (20, 32)
        return features.offers(Feature.OPTION_SHUTDOWN_ANYSEGWIT)
    return features.offers(Feature.OPTION_SIMPLE_CLOSE) and _is_single_push_op_return(script)


def _is_single_push_op_return(script: bytes) -> bool:
    if len(script) < 2 or script[0] != 0x6A:
        return False
    if 6 <= script[1] <= 75:
        return len(script) == 2 + script[1]
    return len(script) > 2 and script[1] == 0x4C and 76 <= script[2] <= 80 and len(script) == 3 + script[2]
