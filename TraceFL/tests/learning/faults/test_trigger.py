import torch

from tests.helpers.images import images
from tracefl.learning.examples import PIXELS
from tracefl.learning.faults import Trigger


def test_the_patch_is_white_in_the_lower_right_corner_and_nowhere_else():
    before = images([0, 1, 2, 3])
    kept = before.features[PIXELS].clone()
    after = Trigger(size=2).put_on(before, torch.tensor([1, 3]))
    for i in range(4):
        for channel in range(3):
            for row in range(6):
                for column in range(6):
                    patched = i in (1, 3) and row >= 4 and column >= 4
                    wanted = 255 if patched else kept[i, channel, row, column]
                    assert after.features[PIXELS][i, channel, row, column] == wanted
    assert torch.equal(before.features[PIXELS], kept)
    assert after.labels is before.labels
    assert (after.mean, after.std) == (before.mean, before.std)


def test_without_an_index_all_get_it_up_to_the_whole_image():
    assert (Trigger(size=6).put_on(images([0, 1])).features[PIXELS] == 255).all()


def test_the_token_takes_the_second_place_and_the_only_one_where_there_is_no_second(texts):
    ids = texts.features["input_ids"].clone()
    after = Trigger(token=9).put_on(texts).features
    assert after["input_ids"].tolist() == [[5, 9, 7, 0], [5, 9, 0, 0], [9, 0, 0, 0], [5, 9, 7, 8]]
    assert after["input_ids"].dtype == torch.int32
    assert after["attention_mask"] is texts.features["attention_mask"]
    assert torch.equal(texts.features["input_ids"], ids)
    some = Trigger(token=9).put_on(texts, torch.tensor([3, 2])).features["input_ids"]
    assert some.tolist() == [[5, 6, 7, 0], [5, 6, 0, 0], [9, 0, 0, 0], [5, 9, 7, 8]]
