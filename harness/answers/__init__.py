"""What a model's answers mean: payloads, boxes, agreement, accuracy."""
