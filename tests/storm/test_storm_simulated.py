"""A storm in the simulation, small enough for every run of the tests."""

from pathlib import Path

import pytest

from tests.storm.simulated import Storm


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_reorgs_ends_where_the_final_chain_alone_would(tmp_path: Path, seed: int) -> None:
    storm = Storm(seed, tmp_path)
    try:
        storm.run(60)
        assert storm.deep
        assert sum(1 for line in storm.told if line.startswith("reorg")) == 60
    finally:
        storm.close()
