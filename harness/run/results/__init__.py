"""What a run leaves: results.json and tables; and how it is read again."""
