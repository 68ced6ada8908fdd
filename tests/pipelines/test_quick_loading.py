from __future__ import annotations

import gc

import pytest

from pipelines.quick_loading import quick_loading


def test_garbage_is_looked_for_again_after_the_block_and_after_an_error_in_it() -> None:
    with quick_loading():
        assert not gc.isenabled()
        with quick_loading():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_loading():
        raise ImportError
    assert gc.isenabled()
