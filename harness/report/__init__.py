"""`report.html`: one run on one self-contained page; `python -m harness.report` makes it from the folder."""
