import pytest
import torch

from db.errors import Refused
from worker.engine.device import autocast, pick_device


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


def test_missing_gpu_is_refused_with_a_remedy() -> None:
    with pytest.raises(Refused, match=r"no device 'cuda:99'.*GENMILL_DEVICE"):
        pick_device("cuda:99")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_matrix_products(precision: str, dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (matrix @ matrix).dtype == dtype
