"""Files made to harm: each is refused with its name, the data set's, and the reason, before a value is read."""

import gzip
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from cmgl_cli.artifacts import create_artifact, open_artifact, partial_path, read_plain
from cmgl_cli.artifacts.safety import Inspection
from cmgl_cli.artifacts.writer import checkpoint_path
from cmgl_cli.errors import InputError
from tests.artifacts import helpers

SECRET = "do not read this"


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "features.h5"
    helpers.write(path)
    (tmp_path / "secret").write_text(SECRET * 100)
    return path


def external_link(file, name):
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        other["grid"] = np.zeros((helpers.ROWS, 2), int)
    file[name] = h5py.ExternalLink("other.h5", "grid")


def soft_link(file, name):
    file[name] = h5py.SoftLink("/label")


def dangling_link(file, name):
    file[name] = h5py.SoftLink("/no/such/place")


def hard_loop(file, name):
    group = file.create_group(name)
    group["again"] = group


def second_name(file, name):
    file[name] = file["label"]


def external_storage(file, name):
    secret = os.path.join(os.path.dirname(file.filename), "secret")
    file.create_dataset(name, (helpers.ROWS, 2), "u1", external=[(secret, 0, h5py.h5f.UNLIMITED)])


def virtual(file, name):
    layout = h5py.VirtualLayout((helpers.ROWS, 2), "i8")
    layout[:] = h5py.VirtualSource("other.h5", "grid", (helpers.ROWS, 2))
    file.create_virtual_dataset(name, layout)


def object_reference(file, name):
    file[name] = np.array([file["id"].ref] * helpers.ROWS, dtype=h5py.ref_dtype)


def region_reference(file, name):
    file.create_dataset(name, data=np.array([file["id"].regionref[:3]], dtype=h5py.regionref_dtype))


def opaque(file, name):
    file[name] = np.zeros(helpers.ROWS, "V16")


def compound(file, name):
    file[name] = np.zeros(helpers.ROWS, [("a", "i4"), ("b", "f4")])


def ragged(file, name):
    file.create_dataset(name, (helpers.ROWS,), h5py.vlen_dtype(np.int32))


def complex_numbers(file, name):
    file[name] = np.zeros((helpers.ROWS, 2), complex)


def committed_type(file, name):
    file[name] = np.dtype("f8")


def empty_space(file, name):
    file[name] = h5py.Empty("f8")


def gigantic(file, name):
    file.create_dataset(name, (helpers.ROWS, 10**6, 10**6), "f2", chunks=(1, 1000, 1000))


def twice_packed(file, name):
    """A thousandth of a thousandth: two rounds of deflate."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2**24,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    space = h5py.h5s.create_simple((2**28,))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, dcpl=plist)
    file[name][: 2**26] = 0


def huge_chunk(file, name):
    file.create_dataset(name, (1, 2**30), "u1", chunks=(1, 2**30), compression="gzip")


def gzip_zeros(size):
    """Return deflated zeros without holding them."""
    import zlib

    packer, block = zlib.compressobj(9), bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(size // 2**20)) + packer.flush()


def unknown_filter(file, name):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((helpers.ROWS, 2))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((helpers.ROWS, 2))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_INT64, space, dcpl=plist)
    file[name].id.write_direct_chunk((0, 0), bytes(helpers.ROWS * 16))


def control_characters(file, name):
    file[name + "\x1b[31m"] = np.zeros(3)


def deep(file, name):
    file.create_group("/".join([name, *"abcdefghijk"]))["x"] = 1


TRICKS = {
    external_link: "is a link",
    soft_link: "is a link",
    dangling_link: "is a link",
    hard_loop: "second name",
    second_name: "second name",
    external_storage: "other files",
    virtual: "other files",
    object_reference: "not plain numbers or texts",
    region_reference: "not plain numbers or texts",
    opaque: "not plain numbers or texts",
    compound: "not plain numbers or texts",
    ragged: "not plain numbers or texts",
    complex_numbers: "not plain numbers or texts",
    committed_type: "neither a group nor a data set",
    empty_space: "not plain numbers or texts",
    gigantic: "claims",
    twice_packed: "claims",
    huge_chunk: "chunks of",
    unknown_filter: "filter 32015",
    control_characters: "no plain name",
    deep: "nested too deeply",
}


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
@pytest.mark.parametrize("place", ["grid", "weights"])
def test_artifacts_that_lead_elsewhere_or_trap_are_refused(artifact, trick, place):
    with h5py.File(artifact, "r+") as file:
        if place in file:
            del file[place]
        trick(file, place)
    with pytest.raises(InputError) as caught:
        open_artifact(artifact)
    assert str(artifact) in caught.value.where and place in caught.value.where
    assert TRICKS[trick] in caught.value.where and caught.value.fix
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("trick", [t for t in TRICKS if t is not second_name], ids=lambda trick: trick.__name__)
def test_files_of_the_users_own_are_held_to_the_same(tmp_path, trick):
    path = tmp_path / "mine.h5"
    (tmp_path / "secret").write_text(SECRET * 100)
    with h5py.File(path, "w") as file:
        file["id"], file["label"] = np.arange(3), np.arange(3)
        trick(file, "covariance")
    with pytest.raises(InputError) as caught:
        read_plain(path)
    assert "covariance" in caught.value.where and TRICKS[trick] in caught.value.where


def test_a_bomb_is_not_unpacked_whole(tmp_path):
    """Within what deflate can do, and still two gigabytes from two megabytes."""
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        bomb = file.create_dataset("covariance", (2**11, 2**20), "u1", chunks=(2**8, 2**20), compression="gzip")
        packed = gzip_zeros(2**28)
        for row in range(0, 2**11, 2**8):
            bomb.id.write_direct_chunk((row, 0), packed)
    assert path.stat().st_size < 3 * 2**20
    with pytest.raises(InputError, match=r"covariance expands to 2\.1 GB from 2\.1 MB"):
        read_plain(path)


def test_many_rows_that_point_to_one_long_text_are_refused(artifact):
    """Forge the addresses of variable-length texts: forty rows, one megabyte each, stored once."""
    with h5py.File(artifact, "r+") as file:
        del file["problem"]
        rows = np.array(["x" * 2**20, *["y"] * (helpers.ROWS - 1)], dtype=object)
        file.create_dataset("problem", data=rows, dtype=h5py.string_dtype())
        place, size = file["problem"].id.get_offset(), file["problem"].id.get_storage_size()
    raw = bytearray(artifact.read_bytes())
    step = size // helpers.ROWS
    raw[place : place + size] = raw[place : place + step] * helpers.ROWS
    artifact.write_bytes(bytes(raw))
    with open_artifact(artifact) as found, pytest.raises(InputError, match="longer than the file"):
        found["problem"]
    with pytest.raises(InputError, match="longer than the file"):
        open_artifact(artifact, verify=True)


@pytest.mark.parametrize(
    "name, value",
    [
        ("config", "[]"),
        ("config", "{"),
        ("config", '{"a": NaN}'),
        ("config", "[" * 100_000),
        ("inputs", '{"nodes": "x"}'),
        ("inputs", '{"nodes": {"file": "x"}}'),
        ("digests", '{"weights": 3}'),
        ("provenance", "3"),
        ("schema_version", "one"),
        ("schema_version", np.arange(3)),
        ("stage_version", h5py.Empty("i8")),
        ("content_digest", np.arange(4)),
        ("schema", np.arange(3)),
    ],
)
def test_headers_of_other_kinds_are_refused(artifact, name, value):
    with h5py.File(artifact, "r+") as file:
        del file.attrs[name]
        if isinstance(value, str) and len(value) > 60_000:
            value = np.bytes_(value[:60_000])
        file.attrs[name] = value
    with pytest.raises(InputError) as caught:
        open_artifact(artifact, verify=True)
    assert str(artifact) in caught.value.where


@pytest.mark.parametrize("name", ["config", "inputs", "digests", "stage"])
def test_verification_covers_the_header(artifact, name):
    with h5py.File(artifact, "r+") as file:
        edited = {"config": '{"encoder":"nome"}', "stage": "extracs", "digests": '{"weights":"v"}'}
        file.attrs[name] = edited.get(name, '{"renders":{"digest":"sha256:1","file":"r.h5"}}')
    open_artifact(artifact).close()
    with pytest.raises(InputError, match="header does not match"):
        open_artifact(artifact, verify=True)


def test_artifacts_from_before_the_header_had_a_digest_still_verify(artifact):
    with h5py.File(artifact, "r+") as file:
        del file.attrs["header_digest"]
    open_artifact(artifact, verify=True).close()


def half_written(path):
    with pytest.raises(KeyboardInterrupt), create_artifact(path, helpers.IDENTITY) as out:
        (rows,) = out.declare_blocks(helpers.BLOCKS)
        rows.put(0, {"features": helpers.tokens(0, 4)})
        out.save_checkpoint({"epoch": np.array(3)})
        raise KeyboardInterrupt
    return partial_path(path)


def test_an_unfinished_file_cannot_make_the_next_run_write_elsewhere(tmp_path):
    path = tmp_path / "features.h5"
    unfinished = half_written(path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    with h5py.File(unfinished, "r+") as file:
        del file["features"]
        size = helpers.ROWS * 6 * 5 * 2
        file.create_dataset("features", (helpers.ROWS, 6, 5), np.float16, external=[(str(victim), 0, size)])
    said = []
    assert helpers.write(path, log=said.append) == helpers.ROWS // helpers.BLOCK
    assert "damaged: starting over" in said[0]
    assert victim.read_bytes() == b"precious" * 1000


def test_an_unfinished_file_of_another_layout_is_started_over(tmp_path):
    path = tmp_path / "features.h5"
    with h5py.File(half_written(path), "r+") as file:
        del file["features"]
        file["features"] = np.zeros((3, 6, 5), np.float16)
    said = []
    assert helpers.write(path, log=said.append) == helpers.ROWS // helpers.BLOCK
    assert "laid out otherwise" in said[1]


def test_a_checkpoint_that_leads_elsewhere_is_not_read(tmp_path):
    path = tmp_path / "features.h5"
    half_written(path)
    with h5py.File(checkpoint_path(path), "r+") as file:
        file["more"] = h5py.ExternalLink("other.h5", "x")
    with pytest.raises(KeyboardInterrupt), create_artifact(path, helpers.IDENTITY) as out:
        assert out.load_checkpoint() is None
        raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"])
def test_texts_that_cannot_be_stored_are_named(tmp_path, text):
    with (
        pytest.raises(InputError, match=r"id\[1\]"),
        create_artifact(tmp_path / "f.h5", helpers.IDENTITY) as out,
    ):
        out.write("id", np.array(["fine", text], dtype=object))


def test_text_columns_written_in_blocks_are_utf8(tmp_path):
    from cmgl_cli.artifacts import BlockSpec

    fields = {"features": ((6, 5), np.float16), "problem": ((), "S16")}
    with create_artifact(tmp_path / "f.h5", helpers.IDENTITY) as out:
        (rows,) = out.declare_blocks(BlockSpec(helpers.ROWS, helpers.ROWS, fields))
        problems = np.array(["日本語".encode()] * helpers.ROWS)
        rows.put(0, {"features": helpers.tokens(0, helpers.ROWS), "problem": problems})
        for name, values in helpers.small_arrays().items():
            if name != "problem":
                out.write(name, values)
    with open_artifact(tmp_path / "f.h5", verify=True) as found:
        assert found["problem"][0] == "日本語"
        assert h5py.check_string_dtype(found.stream("problem").dtype).encoding == "utf-8"


def test_a_file_torn_in_the_middle_of_a_write_takes_no_more_memory_than_it_may(tmp_path):
    """HDF5 goes in circles in this one, which a kill left: it took 17 GB before it was stopped."""
    path = tmp_path / "torn.h5"
    path.write_bytes(gzip.decompress((Path(__file__).parent / "torn.h5.gz").read_bytes()))
    before = resource.getrlimit(resource.RLIMIT_AS)
    with h5py.File(path, "r") as file, pytest.raises(InputError, match="cannot be read"):
        Inspection(path).walk(file)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20
