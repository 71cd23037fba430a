"""Readers of Neo 0.14 that fail, or lie, on valid files, mended by subclasses. Each has a test that shows the fault; where Neo mends it, the class may go."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["mended"]


def mended(cls: Any) -> Any:
    """The class itself, or a subclass without its fault."""
    return {"BlackrockRawIO": _blackrock, "PlexonRawIO": _plexon}.get(cls.__name__, lambda c: c)(cls)


def _blackrock(cls: Any) -> Any:
    class Mended(cls):  # type: ignore[misc]
        """A .nev whose flags do not say that all waveforms have 16 bits: Neo looks an array up in a dict (TypeError)."""

        def _get_waveforms_dtype(self) -> dict[int, str]:
            channels = self._nev_ext_header[b"NEUEVWAV"]
            if int(self._nev_basic_header["additionnal_flags"]) & 1:
                return dict.fromkeys(channels["electrode_id"], "int16")
            widths = {0: "int8", 1: "int8", 2: "int16", 4: "int32"}
            return {c: widths.get(int(b), "int16") for c, b in zip(channels["electrode_id"], channels["bytes_per_waveform"])}

    Mended.__name__ = cls.__name__
    return Mended


def _plexon(cls: Any) -> Any:
    class Mended(cls):  # type: ignore[misc]
        """A span that ends where the last block does: Neo cuts the block at -0 and leaves zeros. Spikes after the last block of the file: dropped."""

        def _get_internal_mask(self, data_block: Any, t_start: Any, t_stop: Any) -> Any:
            if t_start is None and t_stop is None:
                return np.ones(len(data_block), dtype=bool)
            return super()._get_internal_mask(data_block, t_start, t_stop)

        def _get_analogsignal_chunk(self, block_index: int, seg_index: int, i_start: Any, i_stop: Any, stream_index: int, channel_indexes: Any) -> Any:
            stream = self.header["signal_streams"]["id"][stream_index]
            channels = self.header["signal_channels"]
            channels = channels[channels["stream_id"] == stream]
            channels = channels[channel_indexes if channel_indexes is not None else slice(None)]
            i, j = i_start or 0, self._stream_id_samples[stream] if i_stop is None else i_stop
            out = np.zeros((j - i, len(channels)), dtype=np.int16)
            for c, name in enumerate(channels["id"]):
                blocks = self._data_blocks[5][np.int32(name)]
                first, size = blocks["cumsum"], blocks["size"] // 2
                for b in range(int(np.searchsorted(first + size, i, side="right")), int(np.searchsorted(first, j, side="left"))):
                    lo, hi = max(i, int(first[b])), min(j, int(first[b] + size[b]))
                    at = int(blocks["pos"][b]) + 2 * (lo - int(first[b]))
                    out[lo - i : hi - i, c] = self._memmap[at : at + 2 * (hi - lo)].view("<i2")
            return out

    Mended.__name__ = cls.__name__
    return Mended
