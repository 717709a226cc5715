"""A worker is refused for what it computes with, package by package."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emcache.cluster.identity import check_versions, check_visible, own_identity
from emcache.errors import ClusterError


def test_itself():
    own = own_identity()
    check_versions("tcp://a:1", own, own)
    assert own.versions["torch"].partition("+")[1] == ""


def test_other_packages_are_all_named():
    own = own_identity()
    versions = {**own.versions, "torch": "1.0", "emcache": "0.1"}
    del versions["zarr"]
    other = replace(own, host="node7", versions=versions)
    with pytest.raises(ClusterError) as caught:
        check_versions("tcp://a:1", other, own)
    said = str(caught.value)
    assert "tcp://a:1 on node7" in said
    for name, found in (("torch", "1.0"), ("emcache", "0.1"), ("zarr", "none")):
        assert f"{name} {found} instead of {own.versions[name]}" in said
    assert "numpy" not in said


def test_a_workspace_that_is_not_seen(tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(ClusterError, match=r"does not see the workspace .*No such file"):
        check_visible("tcp://a:1", "node7", marker, "content")
    marker.write_text("other")
    with pytest.raises(ClusterError, match=r"does not see the workspace .*other"):
        check_visible("tcp://a:1", "node7", marker, "content")
    marker.write_text("content")
    check_visible("tcp://a:1", "node7", marker, "content")
