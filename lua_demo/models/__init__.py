"""Networks with their weights: loading, decoding, sampling, upscaling."""
