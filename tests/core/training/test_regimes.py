from emcache.storage.run_names import RUN_KINDS
from emcache.training.regimes import REGIMES


def test_every_regime_is_a_kind_of_run() -> None:
    assert set(RUN_KINDS) == {regime.record_kind for regime in REGIMES.values()}
