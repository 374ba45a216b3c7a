"""SSD-ResNet34: the network, default boxes, weights, and each framework's file."""
