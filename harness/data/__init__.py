"""Images and labels; from files to samples."""
