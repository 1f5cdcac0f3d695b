"""Compressed files: read as what they hold; damaged ones are named, and what was good before is counted."""

import gzip
import random
import zlib
from contextlib import suppress

import pyarrow as pa
import pytest

from packlm.corpus import streams
from tests.corpus.reading import refused, written


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {"gz": gzip.compress, "zst": zstd}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(streams, "BLOCK", 7)
    pack = PACKED[suffix]
    assert written(tmp_path, f"a.txt.{suffix}", pack(b"\xef\xbb\xbfone\n") + pack("zwölf".encode()))[0] == {f"a.txt.{suffix}": "one\nzwölf"}
    data = b'{"text": "a"}\n{"text": "b"}\n'
    assert written(tmp_path, f"a.jsonl.{suffix}", pack(data))[0] == {f"a.jsonl.{suffix}:1": "a", f"a.jsonl.{suffix}:2": "b"}
    assert written(tmp_path, f"a.tsv.{suffix}", pack(b"n\ttext\n1\ta, b\n"))[0] == {f"a.tsv.{suffix}:1": "a, b"}
    assert written(tmp_path, f"u.txt.{suffix}", pack("é\nß".encode("utf-16")), encoding="utf-16", document="line")[0] == {
        f"u.txt.{suffix}:1": "é\n",
        f"u.txt.{suffix}:2": "ß",
    }
    assert written(tmp_path, f"e.txt.{suffix}", pack(b""))[1] == {"empty documents skipped": 1}


@pytest.mark.parametrize("suffix", PACKED)
def test_damaged_compressed_files(tmp_path, suffix):
    whole = PACKED[suffix](b"".join(b"%d is a line\n" % number for number in range(300)))
    for kept in [*range(40), len(whole) // 2, *range(len(whole) - 9, len(whole))]:
        refused(
            tmp_path, f"d.{suffix}", whole[:kept], rf"d\.{suffix}: damaged or truncated: .*bytes of text could be read", document="line"
        )
        if kept:
            refused(tmp_path, f"d.{suffix}", whole + whole[:kept], rf"d\.{suffix}: damaged or truncated", document="line")
    for name, bad in {
        "garbage": whole + b"more",
        "plain": b"text that nobody compressed",
    }.items():
        refused(tmp_path, f"{name}.{suffix}", bad, rf"{name}\.{suffix}: damaged or truncated", document="line")


@pytest.mark.parametrize("suffix", PACKED)
def test_the_bytes_of_a_damaged_file_that_are_good_are_counted_exactly(tmp_path, monkeypatch, suffix):
    """However large a block is; of a truncated file what its decoder gives, before other bytes all."""
    text = random.Random(1).randbytes(90_000).hex().encode()
    whole = PACKED[suffix](text)
    for kept in (len(whole) // 3, len(whole) - 9):
        data = whole[:kept]
        good = zlib.decompressobj(31).decompress(data) if suffix == "gz" else streams.zstd.ZstdDecompressor().decompress(data)
        for block in (1 << 22, 1000):
            monkeypatch.setattr(streams, "BLOCK", block)
            refused(tmp_path, f"d.{suffix}", data, rf" {len(good):,} bytes of text could be read before; replace", document="line")
    refused(tmp_path, f"d.{suffix}", whole + b"more", rf" {len(text):,} bytes of text could be read before; replace", document="line")
    if suffix == "gz":  # of zstd, a block of 128 KiB is good or it is not
        data, good, decoder = whole[: len(whole) // 2] + random.Random(2).randbytes(9999), 0, zlib.decompressobj(31)
        with suppress(zlib.error):
            for byte in data:
                good += len(decoder.decompress(bytes((byte,))))
        assert good % 100
        told = rf"Error -3 .* ({good:,}|{good - 1:,}) bytes of text could be read before"  # the last may come with the error
        refused(tmp_path, "d.gz", data, told, document="line")


def test_zstd_with_a_large_window(tmp_path):
    """`zstd --long=31` writes windows that a decoder refuses unless it is told to hold them."""
    options = {streams.zstd.CompressionParameter.window_log: 31, streams.zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = streams.zstd.ZstdCompressor(options=options)
    data = compressor.compress(b"One line.\n" * 1000) + compressor.flush()  # of unknown size: the frame states its window
    with pytest.raises(streams.zstd.ZstdError, match="too much memory"):
        streams.zstd.ZstdDecompressor().decompress(data)
    found, _ = written(tmp_path, "l.txt.zst", data, document="line")
    assert len(found) == 1000 and set(found.values()) == {"One line.\n"}


def test_a_checksum_that_is_wrong(tmp_path):
    data = bytearray(gzip.compress(b"text"))
    data[-8] ^= 1
    refused(tmp_path, "c.gz", bytes(data), r"c\.gz: damaged or truncated: CRC check failed")
    import xxhash

    # A frame of one raw block with a checksum, as RFC 8878 has it; pyarrow itself writes none.
    frame = b"\x28\xb5\x2f\xfd\x24\x04" + (4 << 3 | 1).to_bytes(3, "little") + b"text" + xxhash.xxh64(b"text").digest()[:-5:-1]
    assert written(tmp_path, "c.zst", frame)[0] == {"c.zst": "text"}
    refused(tmp_path, "c.zst", frame.replace(b"text", b"next"), r"c\.zst: damaged or truncated")
