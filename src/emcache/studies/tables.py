"""The tables of a study's file, and what their keys can be."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from annotated_types import Gt, Len, Lt
from pydantic import AfterValidator, Field, StringConstraints

from emcache.cache.alignment import METHODS, Method
from emcache.cache.encoding import TokenType
from emcache.data.greys import read_grey_rule
from emcache.gap.features import LEVELS
from emcache.training.regimes import REGIMES
from emcache.training.sampling import Sampling
from emcache.validation import Table

_LARGEST = 2**31 - 1

Item = TypeVar("Item")
Some = Annotated[list[Item], Len(min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Count = Annotated[int, Gt(0), Lt(_LARGEST)]


def _one_of(*known: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError("unknown")
        return value

    return AfterValidator(check)


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("one is named twice")
    return names


class FeaturesTable(Table):
    """What trainings and distances have in common."""

    backbones: list[Name] = Field([], description="a list of names")
    regimes: Some[Annotated[str, _one_of(*REGIMES)]] = Field(
        ["frozen"], description=f"a list of {' and '.join(REGIMES)}"
    )
    weights: Name | Annotated[dict[str, Name], Len(min_length=1)] = Field(
        "pretrained",
        description="pretrained, random:SEED, hf:REPOSITORY, a short name, a file, or a table of "
        "these by backbone",
    )
    longest_edge: Count = Field(1022, description="a number of pixels")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto, float32 or bfloat16"
    )
    dtype: TokenType = Field("float16", description="float16, float32 or int8")


class GridTable(FeaturesTable):
    """``[[grid]]``: trainings."""

    train_on: Some[Name | Some[Name]] = Field(
        description="a list of datasets, or of lists of datasets"
    )
    seeds: str | int = Field(description='seeds as "0-4"')
    sampling: Some[Annotated[str, _one_of(*Sampling)]] = Field(
        ["natural"], description="a list of natural and balanced"
    )
    train_slices: Some[Count | Literal["all"]] = Field(
        ["all"], description="a list of numbers of slices, or all"
    )
    pixel_size_nm: Annotated[float, Gt(0), Lt(1e9)] | None = Field(None, description="nanometres")
    accumulate: Count = Field(1, description="a number of parts")
    checkpoint: bool = Field(False, description="true or false")
    accept_audit: bool = Field(False, description="true or false")
    evaluate_on: Some[Name] = Field([], description="a list of datasets, or NAME:SPLIT")
    protocol: dict[str, object] = Field({}, description="a table of a protocol's fields")


class GapTable(FeaturesTable):
    """``[[gap]]``: distances."""

    between: Annotated[list[Name], Len(min_length=2), AfterValidator(_different)] = Field(
        description="a list of two or more different datasets, or NAME:SPLIT"
    )
    train_on: Some[Name | Some[Name]] | None = Field(
        None, description="a list of datasets, or of lists of datasets"
    )
    levels: Some[Annotated[str, _one_of(*LEVELS)]] = Field(
        ["slice"], description=f"a list of {', '.join(LEVELS)}"
    )
    by_class: bool = Field(False, description="true or false")
    normalise: Annotated[str, AfterValidator(read_grey_rule)] = Field(
        "none", description="none, percentile, clahe or histogram:DATASET"
    )
    align: Method = Field("none", description=f"one of {', '.join(METHODS)}")


class DatasetTable(Table, extra="allow"):
    """``[datasets.NAME]``: a dataset, with further options of its layout."""

    layout: Name = Field(description="the name of a layout")
    root: Name = Field(description="a folder below that of the data")


class StudyTable(Table):
    """The whole file."""

    name: Name | None = Field(None, description="a text")
    datasets: dict[str, DatasetTable] = Field({}, description="tables, as [datasets.vnc]")
    grid: Some[GridTable] = Field(
        description="one or more [[grid]] with backbones, train_on and seeds"
    )
    gap: list[GapTable] = Field([], description="tables, as [[gap]]")
