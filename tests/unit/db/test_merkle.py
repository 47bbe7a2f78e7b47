"""Trees and proofs as in RFC 9162, compared with its recursive definitions."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.merkle import (
    EMPTY_ROOT,
    GrowingTree,
    Place,
    Span,
    consistency_spans,
    inclusion_spans,
    leaf_hash,
    places,
    span_hash,
)
from tests.proofs import verify_proof

# of Certificate Transparency's reference implementation: the leaves, and the roots of the first n
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
LEAVES.append("606162636465666768696a6b6c6d6e6f")
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# the tree of RFC 9162, section 2.1.5, whose nodes have the letters of its drawing
DRAWN = {
    **{letter: Span(n, n + 1) for n, letter in enumerate("abcdefj")},
    **{"g": Span(0, 2), "h": Span(2, 4), "i": Span(4, 6), "k": Span(0, 4), "l": Span(4, 7)},
}
SIZES = st.integers(1, 70)


def naive_root(hashes):
    """MTH of RFC 9162, section 2.1.1."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    middle = 1
    while 2 * middle < len(hashes):
        middle *= 2
    both = naive_root(hashes[:middle]) + naive_root(hashes[middle:])
    return hashlib.sha256(b"\1" + both).digest()


def grown(size):
    """The hashes of a tree's leaves, and those of all its perfect subtrees."""
    tree, stored, leaves = GrowingTree(0, {}), {}, []
    for number in range(size):
        leaf = leaf_hash(str(number).encode())
        leaves.append(leaf)
        stored |= {Place(0, number): leaf, **dict(tree.append(leaf))}
    return leaves, stored


def test_the_roots_are_those_of_the_reference_implementation():
    tree = GrowingTree(0, {})
    assert tree.root == EMPTY_ROOT
    roots = [tree.root.hex()]
    for leaf in LEAVES:
        tree.append(leaf_hash(bytes.fromhex(leaf)))
        roots.append(tree.root.hex())
    assert roots == ROOTS


@pytest.mark.parametrize(("index", "path"), [(0, "bhl"), (3, "cgl"), (4, "fjk"), (6, "ik")])
def test_audit_paths_are_those_of_the_rfc(index, path):
    assert inclusion_spans(index, 7) == [DRAWN[letter] for letter in path]


@pytest.mark.parametrize(("old", "path"), [(3, "cdgl"), (4, "l"), (6, "ijk"), (7, "")])
def test_consistency_proofs_are_those_of_the_rfc(old, path):
    assert consistency_spans(old, 7) == [DRAWN[letter] for letter in path]


@given(SIZES)
def test_a_root_is_computed_from_a_few_perfect_subtrees(size):
    leaves, stored = grown(size)
    whole = Span(0, size)
    assert span_hash(whole, stored) == naive_root(leaves)
    assert len(places(whole)) == size.bit_count()
    assert len(stored) < 2 * size


@given(SIZES, st.integers(0, 69))
def test_a_tree_goes_on_from_the_subtrees_of_its_size(size, more):
    _, stored = grown(size)
    tree = GrowingTree(size, {place: stored[place] for place in places(Span(0, size))})
    for number in range(size, size + more):
        tree.append(leaf_hash(str(number).encode()))
    assert tree.root == naive_root(grown(size + more)[0])


@given(SIZES, st.data())
def test_strangers_come_to_the_root_from_any_leaf_and_not_from_another(size, data):
    leaves, stored = grown(size)
    index = data.draw(st.integers(0, size - 1))
    path = [span_hash(span, stored) for span in inclusion_spans(index, size)]
    root = naive_root(leaves)
    assert verify_proof.root_of_inclusion(leaves[index], index, size, path) == root
    assert verify_proof.root_of_inclusion(leaf_hash(b"other"), index, size, path) != root
    with pytest.raises(verify_proof.NotProvenError, match="too long"):
        verify_proof.root_of_inclusion(leaves[index], index, size, [*path, root])
    if path:
        with pytest.raises(verify_proof.NotProvenError, match="too short"):
            verify_proof.root_of_inclusion(leaves[index], index, size, path[:-1])


@given(SIZES, st.data())
def test_strangers_see_that_a_tree_goes_on_from_an_older_one(size, data):
    leaves, stored = grown(size)
    old = data.draw(st.integers(1, size))
    path = [span_hash(span, stored) for span in consistency_spans(old, size)]
    both = [naive_root(leaves[:old]), naive_root(leaves)]
    assert verify_proof.roots_of_consistency(old, size, both[0], path) == both
    forged = [naive_root([leaf_hash(b"other"), *leaves[1:old]]), both[1]]
    assert verify_proof.roots_of_consistency(old, size, forged[0], path) != forged
