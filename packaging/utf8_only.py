"""The `encodings` package of the frozen plugins: UTF-8 at once, ASCII and Latin-1 when asked for.

The interpreter cannot start without a package of this name. The standard one costs three files, a
table of 300 aliases and half a millisecond for every pod. The frozen plugins run in UTF-8 mode
whatever the locale says (an option in plugins.spec); the other two codecs are the standard modules.

Imports: _codecs, a part of the interpreter, and codecs, frozen into it: nothing else can be
imported yet.
"""

import _codecs
import codecs


class Encoder(codecs.IncrementalEncoder):
    """Encoder of a text stream."""

    def encode(self, text: str, final: bool = False) -> bytes:  # noqa: ARG002, FBT001, FBT002
        """Encode a piece; UTF-8 needs no state for that."""
        return _codecs.utf_8_encode(text, self.errors)[0]


class Decoder(codecs.BufferedIncrementalDecoder):
    """Decoder of a byte stream; what is cut in the middle of a character waits for the rest."""

    _buffer_decode = staticmethod(_codecs.utf_8_decode)  # type: ignore[assignment]


def decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
    """Decode a whole text: its end is the end, not a pause."""
    return _codecs.utf_8_decode(data, errors, True)


UTF_8 = codecs.CodecInfo(
    _codecs.utf_8_encode,
    decode,  # type: ignore[arg-type]
    incrementalencoder=Encoder,
    incrementaldecoder=Decoder,
    name="utf-8",
)


def search(name: str) -> codecs.CodecInfo | None:
    """Codec of a name as the registry spells it; None where there is none."""
    if name in ("utf_8", "utf8", "utf-8"):
        return UTF_8
    standard = {"ascii": "ascii", "latin_1": "latin_1", "latin1": "latin_1"}.get(name)
    if standard is None:
        return None
    module = __import__(f"encodings.{standard}", fromlist=["getregentry"])
    return module.getregentry()  # type: ignore[no-any-return]


_codecs.register(search)
