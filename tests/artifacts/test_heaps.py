"""Heaps of texts that HDF5 would never come out of are refused before it goes in."""

import resource

import h5py
import pytest

from cmgl_cli.artifacts import heaps, open_artifact, read_header, read_plain
from cmgl_cli.artifacts.heaps import NAMES, SIGNATURE, broken_heap
from cmgl_cli.errors import InputError
from tests.artifacts import helpers


@pytest.fixture
def whole(tmp_path):
    helpers.write(tmp_path / "features.h5")
    return tmp_path / "features.h5"


def spoilt(path, offset, value):
    """Write a number of 8 bytes into the first heap, `offset` bytes behind its start."""
    data = bytearray(path.read_bytes())
    at = data.index(SIGNATURE)
    data[at + offset : at + offset + 8] = value.to_bytes(8, "little")
    path.write_bytes(data)


def test_a_sound_file_has_sound_heaps(whole):
    assert SIGNATURE in whole.read_bytes() and broken_heap(whole) == ""


@pytest.mark.parametrize("size", [0, 8, 2**20, 2**63])
def test_an_object_of_free_space_must_lead_on(whole, size):
    spoilt(whole, 16, 0)
    spoilt(whole, 24, size)
    assert "heap of texts" in broken_heap(whole)
    with pytest.raises(InputError, match="heap of texts"):
        open_artifact(whole)


def test_an_object_that_leaves_its_heap_is_seen(whole):
    spoilt(whole, 24, 2**40)
    assert broken_heap(whole)


def test_bytes_that_only_look_like_a_heap_are_left_alone(whole):
    whole.write_bytes(whole.read_bytes() + SIGNATURE + b"\x01\x00\x00\x00" + b"\xff" * 40)
    assert broken_heap(whole) == ""


def test_large_files_are_looked_at_from_both_ends(whole, monkeypatch):
    spoilt(whole, 24, 2**40)
    monkeypatch.setattr(heaps, "WHOLE", 1)
    monkeypatch.setattr(heaps, "END", whole.stat().st_size)
    assert broken_heap(whole)


def spoilt_names(path, offset, value):
    """Write a number into the first heap of names: `offset` bytes behind its start, or, negative, at its free block."""
    data = bytearray(path.read_bytes())
    at = data.index(NAMES)
    free, segment = (int.from_bytes(data[at + place : at + place + 8], "little") for place in (16, 24))
    place = segment + free if offset < 0 else at + offset
    data[place : place + 8] = value(free).to_bytes(8, "little")
    path.write_bytes(data)


def test_free_blocks_that_lead_in_a_circle_are_seen(whole):
    spoilt_names(whole, -1, lambda free: free)
    assert "heap of names" in broken_heap(whole)
    with pytest.raises(InputError, match="heap of names"):
        open_artifact(whole)


@pytest.mark.parametrize("offset, value", [(16, 2**40), (8, 2**40), (24, 2**62)])
def test_a_heap_of_names_that_leads_outside_is_left_to_hdf5(whole, offset, value):
    spoilt_names(whole, offset, lambda free: value)
    assert broken_heap(whole) == ""
    with pytest.raises(InputError, match="cannot be read"):
        open_artifact(whole)


def refused_within_a_gigabyte(path, place, read, words):
    """Let the text whose length stands at `place` claim three gigabytes, and read the file."""
    data = bytearray(path.read_bytes())
    data[place : place + 4] = (3 * 10**9).to_bytes(4, "little")
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=words):
        read(path)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 2**30


def test_a_text_that_claims_gigabytes_takes_none(whole):
    with h5py.File(whole) as file:
        place = file["classes"].id.get_offset()
    refused_within_a_gigabyte(whole, place, read_plain, "classes")


def test_an_attribute_that_claims_gigabytes_takes_none(whole):
    data = whole.read_bytes()
    with h5py.File(whole) as file:
        length = len(file.attrs["stage"]).to_bytes(4, "little")
    # behind the attribute's name, where the length of its text comes before its place in the heap
    refused_within_a_gigabyte(whole, data.index(length, data.index(b"stage\0")), read_header, "attributes")
