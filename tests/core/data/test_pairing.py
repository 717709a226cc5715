import pytest

from emcache.data.pairing import Rule, pair
from emcache.errors import PairingError


def test_stem_pairs_in_natural_order() -> None:
    images = ["raw/10.tif", "raw/2.tif"]
    assert pair(images, ["m/2.png", "m/10.png"], Rule.STEM) == [
        ("raw/2.tif", "m/2.png"),
        ("raw/10.tif", "m/10.png"),
    ]


def test_number_pairs_names_that_differ() -> None:
    images = [f"mask{i:04d}.png" for i in range(12)]
    masks = [f"{i}.png" for i in range(12)]
    pairs = pair(sorted(images), sorted(masks), Rule.NUMBER)
    assert all(int(image[4:8]) == int(mask[:-4]) for image, mask in pairs)
    assert len(pairs) == 12


def test_of_several_numbers_the_one_that_differs_counts() -> None:
    images = [f"Series7 z{i}.tif" for i in range(12)]
    masks = [f"GT_Series7_{i:03d}_v2.png" for i in range(12)]
    pairs = pair(sorted(images), sorted(masks), Rule.NUMBER)
    assert pairs == list(zip(images, masks, strict=True))
    with pytest.raises(PairingError, match="give --pair number"):
        pair(images, masks, Rule.STEM)


def test_order_pairs_by_natural_position() -> None:
    images = [f"a{i}.png" for i in range(12)]
    masks = [f"b{i}.png" for i in range(12)]
    assert pair(sorted(images), sorted(masks), Rule.ORDER) == list(zip(images, masks, strict=True))


@pytest.mark.parametrize(
    ("images", "masks", "rule", "named"),
    [
        (["1.tif", "2.tif"], ["1.png"], Rule.STEM, "image 2.tif without a mask"),
        (["1.tif"], ["1.png", "7.png"], Rule.STEM, "mask 7.png without an image"),
        (["a1b2.tif"], ["1.png"], Rule.NUMBER, "a1b2.tif has 2 numbers"),
        (["a1b2.tif", "a2b3.tif"], ["1.png"], Rule.NUMBER, "a1b2.tif has 2 numbers .* 2 differ"),
        (["a1b2.tif", "a2.tif"], ["1.png"], Rule.NUMBER, "a2.tif has 1 number .* a1b2.tif has 2"),
        (["x.tif"], ["1.png"], Rule.NUMBER, "x.tif has no number"),
        (["1.tif", "01.png"], ["1.png"], Rule.NUMBER, "1.tif and 01.png both"),
        (["1.tif"], ["1.png", "2.png"], Rule.ORDER, "1 images and 2 masks"),
    ],
)
def test_leftovers_are_named(images: list[str], masks: list[str], rule: Rule, named: str) -> None:
    with pytest.raises(PairingError, match=named):
        pair(images, masks, rule)


def test_many_leftovers_are_counted() -> None:
    with pytest.raises(PairingError, match=r"5 images \(0.tif, 1.tif, 2.tif and 2 more\)"):
        pair([f"{i}.tif" for i in range(6)], ["5.png"], Rule.STEM)


def test_a_suffix_tells_masks_from_images() -> None:
    images = ["exp2_img_001.tif", "exp2_img_010.tif", "exp2_img_002.tif"]
    masks = ["exp2_img_010_label.png", "exp2_img_001_label.png", "exp2_img_002_label.png"]
    assert pair(images, masks, Rule.SUFFIX, "_label") == [
        ("exp2_img_001.tif", "exp2_img_001_label.png"),
        ("exp2_img_002.tif", "exp2_img_002_label.png"),
        ("exp2_img_010.tif", "exp2_img_010_label.png"),
    ]
    with pytest.raises(PairingError, match=r"give --mask-suffix _label\."):
        pair(images, masks, Rule.STEM)
    with pytest.raises(PairingError, match=r"exp2_img_010_label.png does not end in '_mask'"):
        pair(images, masks, Rule.SUFFIX, "_mask")
    with pytest.raises(PairingError, match=r"image exp2_img_010.tif without a mask"):
        pair(images, [masks[1], masks[2]], Rule.SUFFIX, "_label")
