"""The hardware's limit: the bare framework at its best."""
