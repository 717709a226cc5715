"""What every error has in common."""

from emcache.errors import EmcacheError, suggest


def test_no_sentence_repeats_a_whole_file() -> None:
    sentence = str(EmcacheError(f"it holds {'x' * 100_000}; restore the file."))
    assert len(sentence) < 4100
    assert sentence.startswith("it holds x")
    assert sentence.endswith("x; restore the file.")
    assert " [...] " in sentence


def test_a_close_name_is_suggested() -> None:
    assert suggest("backbone", ["backbones", "seeds"]) == "did you mean backbones? "
    assert suggest("q", ["backbones"], "timm:") == ""
