from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from tests.helpers.dicom_files import voxels, write_series
from volseg.errors import InputError, RefusalError
from volseg.loaders import find, load, tape
from volseg.loaders.archive import is_archive, members, open_binary, read_bytes, size_of
from volseg.loaders.candidate import Ignored


def zipped(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            # Written as it is: ZipFile.write would make a path relative.
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return path


def reasons(path: Path) -> dict[str, str]:
    """What isn't read of an archive, by the name shown."""
    return {item.path.relative_to(path).as_posix(): item.reason for item in members(path) if isinstance(item, Ignored)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_read_like_files(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "a.ZIP", {"folder/x": b"hello " * 100, "Bär/日本": b"there"}, method)
    assert is_archive(path)
    assert list(members(path)) == [path / "folder/x", path / "Bär/日本"]
    assert read_bytes(path / "folder/x") == b"hello " * 100
    assert size_of(path / "Bär/日本") == 5
    with open_binary(path / "folder/x") as file:
        file.seek(6)
        assert file.read(5) == b"hello"
        file.seek(0)
        assert file.read(5) == b"hello"


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"plain")
    assert (read_bytes(tmp_path / "x"), size_of(tmp_path / "x")) == (b"plain", 5)


def test_a_series_in_an_archive(tmp_path: Path) -> None:
    write_series(tmp_path / "series" / "study")
    path = Path(shutil.make_archive(str(tmp_path / "Ex port"), "zip", tmp_path / "series"))
    shutil.rmtree(tmp_path / "series")
    study = find(tmp_path)
    (candidate,) = study.candidates
    assert candidate.as_json(study.root)["path"] == "Ex port.zip/study"
    assert len(candidate.files) == 3
    assert_array_equal(candidate.load().array, voxels())
    assert_array_equal(load(path).array, voxels())


def test_one_series_half_inside_and_half_outside(tmp_path: Path) -> None:
    first, second, third = write_series(tmp_path)
    zipped(tmp_path / "rest.zip", {"s": second.read_bytes(), "copy": first.read_bytes()})
    second.unlink()
    study = find(tmp_path)
    (candidate,) = study.candidates
    assert candidate.files == (first, tmp_path / "rest.zip" / "s", third)
    assert [item.path for item in study.ignored] == [tmp_path / "rest.zip" / "copy"]
    assert_array_equal(candidate.load().array, voxels())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../up", "up"),
        ("a/../../up", "a/up"),
        ("/etc/passwd", "etc/passwd"),
        ("C:/x", "C/x"),
        ("a\\..\\x", "a/x"),
        ("\\\\server\\x", "server/x"),
    ],
)
def test_names_that_lead_out_are_not_read(tmp_path: Path, name: str, shown: str) -> None:
    (tmp_path / "up").write_bytes(b"outside")
    path = zipped(tmp_path / "a.zip", {name: b"evil"})
    assert reasons(path) == {shown: "a name that leads out of the archive"}
    with pytest.raises(OSError, match="No such file"):
        open_binary(path / name.lstrip("/"))


def test_a_bomb_is_not_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x": bytes(50_000_000)}, zipfile.ZIP_BZIP2)
    assert path.stat().st_size < 1000
    assert "grows from" in reasons(path)["x"]
    with pytest.raises(InputError, match="can't be read"):
        read_bytes(path / "x")


def test_no_more_is_read_than_the_archive_states(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x": bytes(1000)})
    data = path.read_bytes()
    path.write_bytes(data.replace((1000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    assert size_of(path / "x") == 100
    with pytest.raises(InputError, match="damaged"):  # its checksum is that of a thousand bytes
        read_bytes(path / "x")


def test_what_else_is_not_read(tmp_path: Path) -> None:
    inner = io.BytesIO()
    zipfile.ZipFile(inner, "w").close()
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret", b"x")
        archive.writestr("odd", b"x")
        archive.mkdir("folder")
        archive.writestr("__MACOSX/._x", b"x")
        archive.getinfo("secret").flag_bits |= 1
        archive.getinfo("odd").compress_type = 99
    assert reasons(path) == {
        "inner.zip": "an archive inside an archive; unpack it",
        "link": "a link inside an archive",
        "secret": "encrypted; unpack the archive",
        "odd": "compressed by a method that isn't read (number 99); unpack the archive",
    }
    assert [item for item in members(path) if isinstance(item, Path)] == []


def test_a_damaged_archive_is_ignored_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "b.zip").write_bytes(b"no archive at all")
    (tmp_path / "c.docx").write_bytes(zipped(tmp_path / "c.zip", {"word.xml": b"text"}).read_bytes())
    found = {item.path.relative_to(tmp_path).as_posix(): item.reason for item in find(tmp_path).ignored}
    assert "damaged ZIP archive" in found["a.zip"]
    assert found["b.zip"] == found["c.docx"] == found["c.zip/word.xml"] == "no image that volseg reads"


def test_a_changed_byte_in_a_member_is_noticed(tmp_path: Path) -> None:
    write_series(tmp_path / "series")
    path = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "series"))
    shutil.rmtree(tmp_path / "series")
    (candidate,) = find(path).candidates
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[-1]
    data[info.header_offset + 30 + len(info.filename) + info.compress_size - 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        candidate.load()
    assert caught.value.code == "unreadable"
    assert info.filename in str(caught.value)


def test_folders_that_windows_parts_by_backslashes(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series")
    path = zipped(tmp_path / "w.zip", {f"study\\sub\\{file.name}": file.read_bytes() for file in paths})
    assert list(members(path)) == [path / "study/sub" / file.name for file in paths]
    assert_array_equal(load(path).array, voxels())


def taped(path: Path, content: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return path


@pytest.mark.parametrize("name", ["study.tar", "study.tar.gz", "study.TGZ"])
@pytest.mark.parametrize("lead", ["", "./"])
def test_a_series_in_a_tar_archive(tmp_path: Path, name: str, lead: str) -> None:
    paths = write_series(tmp_path / "series")
    path = taped(tmp_path / name, {f"{lead}study/{file.name}": file.read_bytes() for file in paths})
    shutil.rmtree(tmp_path / "series")
    found = find(tmp_path)
    (candidate,) = found.candidates
    assert candidate.as_json(found.root)["path"] == f"{name}/study"
    assert candidate.files == tuple(path / "study" / file.name for file in paths)
    assert_array_equal(candidate.load().array, voxels())
    assert_array_equal(load(path).array, voxels())


def test_readers_of_one_tar_don_t_disturb_each_other(tmp_path: Path) -> None:
    path = taped(tmp_path / "a.tar.gz", {"x": b"abcdef", "y": b"uvwxyz"})
    with open_binary(path / "x") as first, open_binary(path / "y") as second, open_binary(path / "x") as third:
        assert (first.read(2), second.read(3), first.read(2), third.read(), first.read()) == (
            b"ab",
            b"uvw",
            b"cd",
            b"abcdef",
            b"ef",
        )
        second.seek(-1, 2)
        assert second.read() == b"z"


def test_single_files_that_are_gzipped(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "series"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    (tmp_path / "series" / "log.gz").write_bytes(gzip.compress(b"lines " * 100))
    (tmp_path / "series" / "cut.gz").write_bytes(gzip.compress(b"lines " * 100)[:9])
    found = find(tmp_path)
    (candidate,) = found.candidates
    assert_array_equal(candidate.load().array, voxels())
    assert {item.path.name: item.reason for item in found.ignored} == dict.fromkeys(
        ("log.gz", "cut.gz"), "no image that volseg reads"
    )


def test_what_is_not_read_of_a_tar(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    names = {"../up": b"x", "/etc/x": b"x", "in.zip": b"x", "._x": b"x", "fine": b"good"}
    path = taped(tmp_path / "a.tar", names, link, pipe)
    (tmp_path / "up").write_bytes(b"outside")
    assert reasons(path) == {
        "up": "a name that leads out of the archive",
        "etc/x": "a name that leads out of the archive",
        "in.zip": "an archive inside an archive; unpack it",
        "link": "a link inside an archive",
        "pipe": "no regular file inside an archive",
    }
    assert [item for item in members(path) if isinstance(item, Path)] == [path / "fine"]
    for name in ("../up", "link", "in.zip", "absent"):
        with pytest.raises(OSError, match="No such file"):
            open_binary(path / name)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_that_is_cut_or_changed_anywhere_is_never_a_crash(tmp_path: Path, name: str) -> None:
    path = taped(tmp_path / name, {file.name: file.read_bytes() for file in write_series(tmp_path / "series")})
    shutil.rmtree(tmp_path / "series")
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:at])
        find(tmp_path)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        for candidate in find(tmp_path).candidates:
            with contextlib.suppress(RefusalError):
                candidate.load()


def test_a_bomb_in_a_gzip_is_not_unzipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "TAPE_BYTES", 5000)
    path = taped(tmp_path / "a.tar.gz", {"x": bytes(100_000)})
    assert "too large to be read packed; unpack it" in find(path).ignored[0].reason
    (tmp_path / "b.gz").write_bytes(gzip.compress(bytes(128) + b"DICM" + bytes(100_000)))
    monkeypatch.setattr(tape, "FILE_BYTES", 5000)
    assert "too large to be read packed; unpack it" in find(tmp_path / "b.gz").ignored[0].reason
