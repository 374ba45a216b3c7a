"""MLPerf Inference vision benchmark of a Triton Inference Server."""
