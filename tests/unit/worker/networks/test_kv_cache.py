import pytest
import torch
from torch.nn import functional

from worker.networks.kv_cache import PAGE, DecodeStep, KVCache

CPU = torch.device("cpu")


def test_pages_in_use_come_first_and_a_reset_slot_leaves_no_gap():
    cache = KVCache(1, 3, 4 * PAGE, CPU)
    kept = cache.tensor(torch.zeros(3, 1, 1, 2))
    for slot, length in ((0, PAGE + 1), (1, 3 * PAGE), (2, PAGE + 2), (0, PAGE)):
        cache.make_room(slot, length)
        cache.lengths[slot] += length
    for slot, pages in enumerate(cache.pages):
        for depth, page in enumerate(pages):
            kept[:, :, page] = 10 * slot + depth

    assert cache.used == 3 + 3 + 2
    cache.reset(1)

    assert cache.used == 1 + 3 + 2
    assert sorted(page for pages in cache.pages for page in pages) == [*range(6)]
    assert [kept[0, 0, page, 0, 0, 0].item() for page in cache.pages[0]] == [0, 1, 2]
    assert [kept[0, 0, page, 0, 0, 0].item() for page in cache.pages[2]] == [20, 21]
    assert [cache.owners[page] for page in cache.pages[2]] == [2, 2]


@pytest.mark.parametrize(("heads", "served"), [(4, 1), (2, 3)])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_slots_of_any_length_attend_as_by_one_product(heads, served, scale):
    torch.manual_seed(0)
    lengths, D = [0, 5, PAGE - 1, PAGE, 2 * PAGE + 7], 8
    cache = KVCache(1, len(lengths), 1, CPU)  # all but a page of each slot is allocated later
    texts = [torch.randn(2, heads, length, D) for length in lengths]
    for slot, kept in enumerate(texts):
        places = cache.places(slot, lengths[slot])
        for which in range(2):
            cache.tensor(kept)[0, which][places] = kept[which].transpose(0, 1)
        cache.lengths[slot] = lengths[slot]
    q = torch.randn(len(lengths), heads * served, 1, D)
    k, v = torch.randn(2, len(lengths), heads, 1, D)

    found = DecodeStep(cache).attend(0, q, k, v, scale=scale)

    for slot, kept in enumerate(texts):
        keys, values = (
            torch.cat((old, new[slot]), 1) for old, new in zip(kept, (k, v), strict=True)
        )
        wanted = functional.scaled_dot_product_attention(
            q[slot],
            keys.repeat_interleave(served, 0),
            values.repeat_interleave(served, 0),
            scale=scale,
        )
        torch.testing.assert_close(found[slot], wanted, rtol=1e-5, atol=1e-5)


def test_what_a_slot_attends_to_is_the_same_bits_whatever_the_others_have_read():
    torch.manual_seed(0)
    text, (q, k, v) = torch.randn(2, 2, 70, 8), torch.randn(3, 3, 2, 1, 8)
    found = []
    for other in (1, 300):
        cache = KVCache(1, 3, 1, CPU)
        for slot, kept in enumerate((torch.randn(2, 2, other, 8), text, torch.zeros(2, 2, 0, 8))):
            places = cache.places(slot, kept.shape[2])
            for which in range(2):
                cache.tensor(kept)[0, which][places] = kept[which].transpose(0, 1)
            cache.lengths[slot] = kept.shape[2]
        found.append(DecodeStep(cache).attend(0, q, k, v)[1:])
    assert torch.equal(*found)
