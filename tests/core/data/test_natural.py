from hypothesis import example, given
from hypothesis import strategies as st

from emcache.data.plane import natural_key, natural_sorted


def test_counts_as_a_person_does() -> None:
    names = [f"{i}.png" for i in range(20)]
    assert natural_sorted(sorted(names)) == names
    assert sorted(names) != names


def test_leading_zeros_and_text() -> None:
    assert natural_sorted(["b2", "a10", "a9", "a09", "a"]) == ["a", "a09", "a9", "a10", "b2"]


@example(["\N{SUPERSCRIPT ONE}", "\N{ARABIC-INDIC DIGIT TWO}", "1"])
@given(st.lists(st.text(max_size=6), max_size=8))
def test_order_is_total(names: list[str]) -> None:
    ordered = natural_sorted(names)
    assert sorted(ordered) == sorted(names)
    assert natural_sorted(reversed(ordered)) == ordered
    keys = [natural_key(name) for name in ordered]
    assert keys == sorted(keys)
