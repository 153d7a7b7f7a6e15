import numpy as np

from pluri.tasks.task import Labelled
from pluri.tasks.windows import TokenWindows


def chars(*texts):
    return [Labelled(tuple(text), (), f"f:{i}") for i, text in enumerate(texts)]


def test_a_unit_is_known_by_its_neighbourhood_and_nothing_else():
    features = TokenWindows(chars("abcde", "xbcdy", "bcd"))
    seen = features(chars("abcde", "xabcdey", "zzabcdezz"))
    dense = seen.toarray()
    middle = [dense[2], dense[5 + 3], dense[5 + 7 + 4]]  # the c of each: the same two tokens on both sides
    assert (middle[0] == middle[1]).all()
    assert (middle[0] == middle[2]).all()
    assert (dense[2] != dense[3]).any()


def test_neighbours_stop_at_the_sentence():
    features = TokenWindows(chars("ab", "cd"))
    together, alone = features(chars("ab", "cd")), features(chars("cd"))
    assert (together[2:] != alone).nnz == 0


def test_each_unit_of_the_training_data_has_all_its_features():
    """11 windows and 3 character classes; no two of them may fall on the same column."""
    features = TokenWindows(chars("abcdefgh"))
    counts = features(chars("abcdefgh")).sum(1)
    assert (np.asarray(counts) == 14).all()
    assert features(chars("abcdefgh")).max() == 1


def test_unseen_features_are_left_out():
    features = TokenWindows(chars("abc"))
    assert features(chars("zzzzz"))[2].nnz == 3  # the character classes, which are those of any small letter


def test_words_are_also_known_by_their_ends():
    train = [Labelled(("walking", "talks"), (), "f:1")]
    features = TokenWindows(train)
    asked = features([Labelled(("going", "eats"), (), "f:1")])
    assert asked[0].nnz > 4
