"""Published weights and data sets: downloaded, verified, unpacked."""
