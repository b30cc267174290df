"""The chains Leyden knows."""

import enum

import msgspec

from leyden.bitcoin.errors import BitcoinError
from leyden.types import BlockHash


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    genesis: str
    hrp: str
    invoice_hrp: str
    p2pkh_prefix: int
    p2sh_prefix: int
    pow_limit: int


_MAIN_POW_LIMIT = 0xFFFF << 208


class Network(enum.Enum):
    """A chain and its constants. ``Network.from_name("signet")`` for the names used in configuration."""

    MAINNET = _Parameters(
        genesis="000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        hrp="bc",
        invoice_hrp="bc",
        p2pkh_prefix=0x00,
        p2sh_prefix=0x05,
        pow_limit=_MAIN_POW_LIMIT,
    )
    TESTNET4 = _Parameters(
        genesis="00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        hrp="tb",
        invoice_hrp="tb",
        p2pkh_prefix=0x6F,
        p2sh_prefix=0xC4,
        pow_limit=_MAIN_POW_LIMIT,
    )
    SIGNET = _Parameters(
        genesis="00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        hrp="tb",
        invoice_hrp="tbs",
        p2pkh_prefix=0x6F,
        p2sh_prefix=0xC4,
        pow_limit=0x0377AE << 216,
    )
    REGTEST = _Parameters(
        genesis="0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        hrp="bcrt",
        invoice_hrp="bcrt",
        p2pkh_prefix=0x6F,
        p2sh_prefix=0xC4,
        pow_limit=0x7FFFFF << 232,
    )

    @property
    def chain_hash(self) -> BlockHash:
        """Hash of the genesis block in internal order: ``chain_hash`` on the wire (BOLT 0)."""
        return BlockHash(bytes.fromhex(self.value.genesis)[::-1])

    @property
    def hrp(self) -> str:
        """Human-readable part of segwit addresses (BIP 173)."""
        return self.value.hrp

    @property
    def invoice_hrp(self) -> str:
        """What follows ``ln`` in an invoice (BOLT 11)."""
        return self.value.invoice_hrp

    @property
    def p2pkh_prefix(self) -> int:
        """Version byte of base58 addresses that pay to a key hash."""
        return self.value.p2pkh_prefix

    @property
    def p2sh_prefix(self) -> int:
        """Version byte of base58 addresses that pay to a script hash."""
        return self.value.p2sh_prefix

    @property
    def pow_limit(self) -> int:
        """The easiest target a block may have."""
        return self.value.pow_limit

    @property
    def label(self) -> str:
        """The name for people and configuration: ``mainnet``, ``testnet4``, ``signet``, ``regtest``."""
        return self.name.lower()

    @classmethod
    def from_name(cls, name: str) -> "Network":
        """The inverse of ``label``; ``BitcoinError`` for an unknown name."""
        for network in cls:
            if network.label == name:
                return network
        raise BitcoinError(f"unknown network {name[:40]!r}: use one of {', '.join(n.label for n in cls)}")

    @classmethod
    def from_chain_hash(cls, chain_hash: bytes) -> "Network | None":
        """The network with this genesis hash (internal order), or None."""
        return next((network for network in cls if network.chain_hash == chain_hash), None)
