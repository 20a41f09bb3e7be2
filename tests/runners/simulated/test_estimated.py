"""The peer's estimate at loads that do not go round."""

from types import SimpleNamespace

import pytest

from runners.simulated.estimated import Estimated
from runners.workload.workload import Lengths, Workload
from search_spaces.config import Layout, ServingConfig
from search_spaces.engines.engine import find_engine
from search_spaces.models.model import find_model

WORK = Workload(input_tokens=Lengths(low=100, high=100), output_tokens=Lengths(low=10, high=10))


class ConstantPeer:
    """Every batch takes a second for each of its requests' tokens: a scheduler has `batch` tokens/s."""

    model = find_model("gpt-oss-120b")

    def peer_estimate(self, _key, **_options):
        return lambda batch, *_lengths: SimpleNamespace(output_rate=float(batch), ttft=0.1, tpot=1.0, fits=True)


@pytest.mark.parametrize("load", [1, 7, 8, 12, 16, 20])
def test_a_load_that_does_not_go_round_is_no_larger_load(load):
    config = ServingConfig(engine=find_engine("trtllm"), layout=Layout(replicas=8))
    with Estimated(ConstantPeer()).serve(config) as measure:
        assert measure(WORK.at(load)).output_rate == pytest.approx(load)
