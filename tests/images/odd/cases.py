"""All odd files, and formats that are named because nothing reads them."""

from collections.abc import Callable, Iterator, Mapping

from tests.images.odd import encoded, png_files, tiff_files
from tests.images.odd.picture import Case

_FOREIGN = {
    "jxl": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "jxl-boxed": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
    "j2k": (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
    "psd": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "raw file"),
    "cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw file"),
    "raf": (b"FUJIFILMCCD-RAW 0201" + bytes(40), "raw file"),
    "orf": (b"IIRO\x08\0\0\0" + bytes(40), "raw file"),
    "rw2": (b"IIU\0\x18\0\0\0" + bytes(40), "raw file"),
    "x3f": (b"FOVb" + bytes(40), "raw file"),
    "jxr": (b"II\xbc\1" + bytes(40), "JPEG XR"),
    "exr": (b"\x76\x2f\x31\x01" + bytes(40), "OpenEXR"),
    "hdr": (b"#?RADIANCE\n" + bytes(40), "Radiance"),
    "dds": (b"DDS " + bytes(40), "DDS"),
    "qoi": (b"qoif" + bytes(40), "QOI"),
    "xcf": (b"gimp xcf v011" + bytes(40), "GIMP"),
    "ico": (b"\0\0\1\0\1\0" + bytes(40), "icon"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "html": (b"<!DOCTYPE html><html></html>", "HTML"),
    "ppm": (b"P6\n4 4\n255\n" + bytes(48), "Netpbm"),
    "zip": (b"PK\3\4" + bytes(40), "ZIP"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "video"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(40), "video"),
    "wav": (b"RIFF\x24\0\0\0WAVEfmt ", "sound"),
    "heif-of-jpeg": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg", "HEIF"),
    "dicom": (bytes(128) + b"DICM", "DICOM"),
    "fits": (b"SIMPLE  =                    T", "FITS"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS"),
}


def _foreign() -> Iterator[Case]:
    for name, (data, word) in _FOREIGN.items():
        yield Case(f"foreign-{name}", data, None, (word,))


MAKERS: Mapping[str, Callable[[], Iterator[Case]]] = {
    "png-kinds": png_files.plain,
    "png-transparent": png_files.transparent,
    "png-colours": png_files.colour_chunks,
    "png-damaged": png_files.damaged_ancillary,
    "tiff-integers": tiff_files.grey_integers,
    "tiff-floats": tiff_files.grey_floats,
    "tiff-colours": tiff_files.colours,
    "rgb-profiles": encoded.with_profiles,
    "other-profiles": encoded.with_other_profiles,
    "turns": encoded.turns,
    "compressed": encoded.compressed,
    "cut": encoded.cut,
    "foreign": _foreign,
}
