"""A model that computes nothing, which leaves the harness and Triton to be measured."""
