"""Real texts beside made ones: as many words each, and no word twice."""

from worker.evaluation.writings import _excerpts, words_of


def test_words_are_runs_of_letters_and_marks_or_single_ideographs():
    assert words_of("It's 3 o'clock!") == ["It", "'", "s", "3", "o", "'", "clock", "!"]
    assert words_of("猫が好き, cats") == ["猫", "が", "好", "き", ",", "cats"]


def test_excerpts_have_as_many_words_and_do_not_overlap():
    documents = [" ".join(f"w{number}" for number in range(50)), "x1 x2 x3"]
    like = [["a"] * size for size in (5, 0, 20, 12)]
    found = [words_of(each) for each in _excerpts(documents, like)]
    assert [len(each) for each in found] == [5, 0, 20, 12]
    words = [word for each in found for word in each]
    assert len(words) == len(set(words))
    assert found[-1][-1] == "x3"


def test_few_words_are_used_again():
    found = _excerpts(["one two three"], [["a"] * 2, ["b"] * 9, ["c"] * 2])
    assert [len(words_of(each)) for each in found] == [2, 3, 2]
    assert _excerpts([], [["a"]]) == [""]
