"""Benchmarks: ``python -m benchmarks NAME... [--quick] [--list]``, one module ``bench_NAME.py`` each."""
