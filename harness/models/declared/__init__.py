"""The models of the benchmark, one declaration each."""
