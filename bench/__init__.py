"""Benchmarks: ours beside peft's, in one process, same weights, same batches, interleaved. Ratios, never tests."""
