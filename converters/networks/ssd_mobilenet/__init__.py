"""SSD-MobileNet-v1: anchors, seeded weights, and its detection part in two frameworks."""
