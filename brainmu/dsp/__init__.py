"""Signal processing on arrays: filters, resampling, spectra, envelopes, artefacts. numpy and scipy only; import from the submodules."""
