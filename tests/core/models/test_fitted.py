"""Heads that are fitted to a few labelled tokens, against plain transcriptions of their methods."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from emcache.errors import UsageError
from emcache.models.fitted import FITTED_HEADS, build_fitted
from emcache.models.fitting import Annotated
from emcache.models.heads import FITTED, takes_images

SIZE = (8, 9)


def slices(count: int = 2, points: int = 40, seed: int = 0, image: bool = False) -> list[Annotated]:
    """Made-up tokens whose foreground, a disc, lies apart in two channels."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        row, col = np.mgrid[: SIZE[0], : SIZE[1]]
        inside = (row - 3) ** 2 + (col - 4) ** 2 < 7
        tokens = random.normal(size=(*SIZE, 6)).astype(np.float32)
        tokens[inside, :2] += 3
        places = random.uniform(size=(points, 2))
        cells = (places * SIZE).astype(int)
        labels = inside[cells[:, 0], cells[:, 1]].astype(np.uint8)
        pixels = random.normal(size=(3, 32, 36)).astype(np.float32) if image else None
        found.append(Annotated(tokens, places, labels, pixels))
    return found


def head(kind: str, threshold: float = 0.5):
    return build_fitted(kind, 6, 0, threshold, neighbours=5, trees=20)


def grid_of(item: Annotated) -> torch.Tensor:
    return torch.from_numpy(item.tokens).permute(2, 0, 1)[None]


def transcribed(annotated: list[Annotated], query: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """DINOSim's two maps of distances, in NumPy."""
    y, x = np.mgrid[-1:2, -1:2]
    kernel = np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
    kernel /= kernel.sum()

    def smooth(distances: np.ndarray) -> np.ndarray:
        # scipy's mirror is PyTorch's reflect: the edge itself is not repeated.
        return convolve(distances, kernel, mode="mirror")

    def normal(distances: np.ndarray) -> np.ndarray:
        low, high = np.quantile(distances, (0.01, 0.99))
        return (np.clip(distances, low, high) - low) / (high - low + 1e-8)

    clicked = []
    for item in annotated:
        for (row, col), label in zip(item.points, item.foreground, strict=True):
            if label:
                clicked.append(item.tokens[int(row * SIZE[0]), int(col * SIZE[1])])
    prototype = np.mean(np.array(clicked, np.float64), axis=0)
    labels, references = [], []
    for item in annotated:
        distances = np.sqrt(((item.tokens.astype(np.float64) - prototype) ** 2).sum(axis=-1))
        labels.append(normal(smooth(distances)).ravel())
        references.append(item.tokens.reshape(-1, 6).astype(np.float64))
    labels, references = np.concatenate(labels), np.concatenate(references)
    flat = query.reshape(-1, 6).astype(np.float64)
    distances = np.sqrt(((flat[:, None] - references) ** 2).sum(axis=-1))
    nearest = np.argsort(distances, axis=1)[:, :k]
    knn = smooth(labels[nearest].mean(axis=1).reshape(SIZE))
    own = np.sqrt(((query.astype(np.float64) - prototype) ** 2).sum(axis=-1))
    return {"knn": knn, "prototype": normal(smooth(own))}


@pytest.mark.parametrize("kind", ["knn", "prototype"])
def test_the_map_is_that_of_the_published_method(kind: str) -> None:
    annotated, query = slices(), slices(1, seed=5)[0]
    fitted = head(kind)
    fitted.fit(annotated)
    found = 1 - fitted.scores(grid_of(query), None)[0, 0].numpy()
    np.testing.assert_allclose(found, transcribed(annotated, query.tokens, 5)[kind], atol=1e-5)


@pytest.mark.parametrize("kind", ["knn", "prototype"])
def test_slices_of_a_step_do_not_change_one_another(kind: str) -> None:
    fitted = head(kind)
    fitted.fit(slices())
    one, other = (grid_of(item) for item in slices(2, seed=5))
    both = fitted.scores(torch.cat([one, 3 * other]), None)
    alone = torch.cat([fitted.scores(one, None), fitted.scores(3 * other, None)])
    torch.testing.assert_close(both, alone)


def test_the_forest_is_scikit_learns_on_the_tokens_under_the_points() -> None:
    annotated, query = slices(), slices(1, seed=5)[0]
    fitted = head("forest")
    fitted.fit(annotated)
    rows, labels = [], []
    for item in annotated:
        for (row, col), label in zip(item.points, item.foreground, strict=True):
            rows.append(item.tokens[int(row * SIZE[0]), int(col * SIZE[1])])
            labels.append(label)
    plain = RandomForestClassifier(20, random_state=0).fit(np.array(rows), labels)
    wanted = plain.predict_proba(query.tokens.reshape(-1, 6))[:, 1].reshape(SIZE)
    found = fitted.scores(grid_of(query), None)[0, 0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["filters", "forest-filters"])
def test_filters_are_read_pixel_by_pixel(kind: str) -> None:
    annotated, query = slices(image=True), slices(1, seed=5, image=True)[0]
    fitted = head(kind)
    assert fitted.takes_images
    assert takes_images(kind)
    fitted.fit(annotated)

    def features(item: Annotated, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        own = multiscale_basic_features(item.image[0], sigma_min=1, sigma_max=16)[rows, cols]
        tokens = item.tokens[rows * SIZE[0] // 32, cols * SIZE[1] // 36]
        return own if kind == "filters" else np.concatenate([tokens, own], axis=1)

    rows = [features(item, *(item.points * (32, 36)).astype(int).T) for item in annotated]
    labels = np.concatenate([item.foreground for item in annotated])
    plain = RandomForestClassifier(20, random_state=0).fit(np.concatenate(rows), labels)
    everywhere = features(query, *np.divmod(np.arange(32 * 36), 36))
    wanted = plain.predict_proba(everywhere.astype(np.float32))[:, 1].reshape(32, 36)
    images = torch.from_numpy(query.image)[None]
    found = fitted.scores(grid_of(query), images)[0, 0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", FITTED_HEADS)
def test_a_head_that_was_saved_says_the_same(kind: str) -> None:
    assert kind in FITTED
    annotated, query = slices(image=True), slices(1, seed=5, image=True)[0]
    fitted = head(kind)
    fitted.fit(annotated)
    images = torch.from_numpy(query.image)[None]
    before = fitted(grid_of(query), (40, 45), images)
    assert before.shape == (1, 2, 40, 45)
    again = head(kind)
    again.load_state_dict(fitted.state_dict())
    assert torch.equal(again(grid_of(query), (40, 45), images), before)
    with pytest.raises(RuntimeError, match="missing"):
        head(kind).load_state_dict({"threshold": torch.tensor(0.5)})
    first, *others = fitted.parts
    state = fitted.state_dict()
    wrong = [(first, state[first][..., :-1]), (first, state[first] * torch.nan)]
    wrong += [(name, state[name][:-1]) for name in others]
    for name, part in wrong:
        with pytest.raises(RuntimeError, match="parts of"):
            head(kind).load_state_dict({**state, name: part})


def test_foreground_is_where_the_resized_score_is_above_the_threshold() -> None:
    annotated, query = slices(), slices(1, seed=5)[0]
    for threshold in (0.3, 0.5, 0.8):
        fitted = head("prototype", threshold)
        fitted.fit(annotated)
        score = torch.nn.functional.interpolate(
            fitted.scores(grid_of(query), None), (40, 45), mode="bilinear", align_corners=False
        )
        labels = fitted(grid_of(query), (40, 45)).argmax(dim=1)
        assert torch.equal(labels[0] == 1, score[0, 0] > threshold)
        assert 0 < labels.float().mean() < 1


def test_a_token_counts_once_for_the_regression() -> None:
    """Ten times as many pixels in the same tokens change nothing."""
    annotated, query = slices(), slices(1, seed=5)[0]
    many = [
        Annotated(i.tokens, np.repeat(i.points, 10, axis=0), np.repeat(i.foreground, 10))
        for i in annotated
    ]
    scores = []
    for given in (annotated, many):
        fitted = head("logistic")
        fitted.fit(given)
        scores.append(fitted.scores(grid_of(query), None))
    torch.testing.assert_close(*scores)


def test_a_token_counts_for_each_class_by_its_share() -> None:
    """The same as points that are weighted by one over the number in their token."""
    random = np.random.default_rng(7)
    item, query = slices(1, points=300)[0], slices(1, seed=5)[0]
    labels = np.where(random.uniform(size=300) < 0.2, 1 - item.foreground, item.foreground)
    fitted = head("logistic")
    fitted.fit([item._replace(foreground=labels)])
    cells = (item.points * SIZE).astype(int) @ (SIZE[1], 1)
    known, place, count = np.unique(cells, return_inverse=True, return_counts=True)
    flat = item.tokens.reshape(-1, 6)
    scaler = StandardScaler().fit(flat[known])
    plain = LogisticRegression(C=0.01, max_iter=1000)
    plain.fit(scaler.transform(flat[cells]), labels, sample_weight=1 / count[place])
    wanted = plain.predict_proba(scaler.transform(query.tokens.reshape(-1, 6)))[:, 1]
    found = fitted.scores(grid_of(query), None)[0, 0].numpy()
    np.testing.assert_allclose(found, wanted.reshape(SIZE), atol=1e-4)


@pytest.mark.parametrize("kind", FITTED_HEADS)
def test_a_class_without_points_is_named(kind: str) -> None:
    one = [item._replace(foreground=np.zeros_like(item.foreground)) for item in slices()]
    with pytest.raises(UsageError, match="no annotated point is foreground"):
        head(kind).fit(one)
    two = [item._replace(foreground=np.ones_like(item.foreground)) for item in slices(image=True)]
    if kind in ("prototype", "knn"):
        head(kind).fit(two)
    else:
        with pytest.raises(UsageError, match=r"no annotated point is background; .* prototype or"):
            head(kind).fit(two)
