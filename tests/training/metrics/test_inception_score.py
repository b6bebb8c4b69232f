"""The inception score is the published one, and has its known extremes."""

from __future__ import annotations

import pytest
import torch

from torch_utils.errors import UserError
from training.metrics.quality import inception_score


def test_the_published_numbers(published):
    for splits in (10, 1):
        wanted = published(f"is/mean_std_splits{splits}").tolist()
        assert inception_score(published("is/probs"), splits) == pytest.approx(wanted, rel=1e-12)


def test_sure_and_varied_scores_the_number_of_classes_and_the_same_for_all_scores_one():
    assert inception_score(torch.eye(7).repeat(20, 1), splits=2) == pytest.approx((7.0, 0.0))
    assert inception_score(torch.full((40, 5), 0.2), splits=4) == pytest.approx((1.0, 0.0))


def test_each_part_needs_a_image():
    with pytest.raises(UserError, match="10 parts, and 9 images are too few"):
        inception_score(torch.eye(9))
    assert inception_score(torch.eye(10))[0] == pytest.approx(1.0)
